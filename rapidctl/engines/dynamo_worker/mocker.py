"""Dynamo's own engine without a GPU."""

from collections.abc import Sequence
from typing import Any

from rapidctl.engines.dynamo_worker.half import Half
from rapidctl.engines.dynamo_worker.words import without_mode


async def mocker(words: Sequence[str], role: str) -> Half:
    """Dynamo's own engine without a GPU (dynamo.mocker), with the words of its command line. Raises ValueError."""
    from dynamo.common.utils.runtime import create_runtime
    from dynamo.llm import EngineType, EntrypointArgs, make_engine, run_input, unregister_model
    from dynamo.mocker.args import parse_args, resolve_planner_profile_data
    from dynamo.mocker.config import apply_worker_engine_args_overrides, build_runtime_config, load_mocker_engine_args
    from dynamo.mocker.utils.kv_cache import compute_kv_bytes_per_token

    args = parse_args([*without_mode(words), "--disaggregation-mode", role])
    if args.num_workers != 1:
        raise ValueError(f"--num-workers is {args.num_workers}, must be 1: each worker has a role and a GPU of its own")
    profile = resolve_planner_profile_data(args.planner_profile_data)  # may hold a folder that goes with it
    args.planner_profile_data = profile.npz_path
    kv_bytes = args.kv_bytes_per_token
    if kv_bytes is None and args.model_path:
        kv_bytes = compute_kv_bytes_per_token(args.model_path, args.kv_cache_dtype)
    ports = args.bootstrap_ports_list
    engine_args = load_mocker_engine_args(args)
    engine_args["engine"]["worker_type"] = role  # a file of --extra-engine-args may say another
    engine_args = apply_worker_engine_args_overrides(
        engine_args, kv_bytes_per_token=kv_bytes, bootstrap_port=ports[0] if ports else None
    )
    runtime, _ = create_runtime(
        args.discovery_backend, args.request_plane, args.event_plane, response_plane=args.response_plane
    )
    block_size, runtime_config = build_runtime_config(engine_args)
    entry = EntrypointArgs(
        engine_type=EngineType.Mocker,
        model_path=args.model_path,
        model_name=args.model_name,
        endpoint_id=args.endpoint,
        mocker_engine_args=engine_args,
        runtime_config=runtime_config,
        kv_cache_block_size=block_size,
        is_prefill=args.is_prefill_worker,
        is_decode=args.is_decode_worker,
    )
    engine = await make_engine(runtime, entry)
    del profile
    path = args.endpoint.removeprefix("dyn://")

    async def publish() -> None:
        await _register(runtime.endpoint(path), args, role, block_size, runtime_config)

    return Half(
        runtime,
        path,
        serve=lambda: run_input(runtime, args.endpoint, engine),
        withdraw=lambda: unregister_model(runtime.endpoint(path)),
        publish=publish,
    )


async def _register(endpoint: Any, args: Any, role: str, block_size: int, runtime_config: Any) -> None:
    """Publish the card as run_input does."""
    from dynamo.llm import ModelInput, ModelType, WorkerType, register_model

    prefills = role == "prefill"
    await register_model(
        ModelInput.Tokens,
        ModelType.Empty if prefills else ModelType.Chat | ModelType.Completions,
        endpoint,
        args.model_path,
        args.model_name,
        worker_type=WorkerType.Prefill if prefills else WorkerType.Decode,
        kv_cache_block_size=block_size,
        runtime_config=runtime_config,
        needs=[[WorkerType.Decode if prefills else WorkerType.Prefill]],
    )
