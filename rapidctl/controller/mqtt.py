"""The facility's bus over MQTT 3.1.1: dials the broker for as long as the controller lives, publishes what is true,
takes orders. Off without a [mqtt] section. The loop never waits for it: what goes out waits in a bounded bag, and what
comes in waits in a bounded queue.
"""

import asyncio
import contextlib
import logging
import random
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import NoReturn, cast

import aiomqtt
from structlog.typing import FilteringBoundLogger

from rapid import __version__
from rapid.clock import Clock
from rapid.config.mqtt import UNSIGNED, MqttTable, broker_of
from rapid.core.commands import Command, Notice, PublishResult
from rapid.core.errors import ConfigInvalid, Unreachable
from rapid.core.events import BudgetOrdered, Delivered
from rapid.core.facility.nouns import BudgetOrder
from rapid.core.status import Status
from rapid.streams import first_of
from rapid.tls import copy_of
from rapidctl.controller.facility.board import Board
from rapidctl.controller.facility.dsx import SET_FILTER, Flex
from rapidctl.controller.facility.keys import BadSignature, KeyRing
from rapidctl.controller.facility.messages import encode
from rapidctl.controller.facility.postbag import Letter, Postbag
from rapidctl.controller.facility.sieve import Allowance, Sieve
from rapidctl.controller.facility.topics import Topics
from rapidctl.controller.facility.waiting import Waiting
from rapidctl.controller.facility.words import Malformed, domain_state, event_of, node_state, result_of, site_status
from rapidctl.controller.inbox import Inbox

PRESENT, STOPPED, LOST = "present", "stopped", "lost"
LOOK_S = 0.25  # how often the state is looked at; a change of it is out within 1 s
TIMEOUT_S = 10.0  # a broker that does not answer for so long is hung up on
FAREWELL_S = 1.0
KEEPALIVE_S = 10
BACKOFF_S = (0.25, 10.0)  # the first pause before dialling again, doubled up to the second
SAY_AGAIN_S = 60.0  # how often a broker that cannot be reached is mentioned
SENDERS = 8  # messages on their way to the broker at once
AT_LEAST_ONCE = 1
REFUSED = 128  # and above: what a broker answers to a subscription that it does not make


def check(config: MqttTable) -> None:
    """Raise ConfigInvalid for keys, certificates or a password that cannot be used."""
    keys = KeyRing(config.key)
    if config.dsx is not None:
        Flex(config.dsx, keys, "")
    _tls_context(config)
    _password(config)


class Mqtt:
    """The connection of one controller to one broker."""

    def __init__(
        self,
        config: MqttTable,
        inbox: Inbox,
        sight: Callable[[], Status],
        *,
        clock: Clock,
        log: FilteringBoundLogger,
    ) -> None:
        """Raises ConfigInvalid for keys, certificates or a password that cannot be used."""
        self._config, self._inbox, self._sight, self._clock, self._log = config, inbox, sight, clock, log
        self._broker = broker_of(config)
        self._tls = _tls_context(config)
        self._password = _password(config)
        self._topics = Topics(config.site)
        self._bag = Postbag()
        self._board = Board(float(config.interval_s))
        keys, unsigned = KeyRing(config.key), UNSIGNED if config.unsigned else ""
        self._allowance = Allowance(clock.monotonic_s)
        self._flex = Flex(config.dsx, keys, unsigned) if config.dsx else None
        self._sieve = Sieve(
            config.site,
            keys,
            unsigned,
            answer=self._bag.put_answer,
            wall_s=clock.wall_s,
            clock=clock.monotonic_s,
        )
        self._orders = Waiting()
        self._said_s = float("-inf")
        self._crowded_s = float("-inf")

    def tell(self, command: Command) -> None:
        """A command of the core was performed: what of it is for others goes into the bag. Never waits."""
        if isinstance(command, PublishResult):
            result = command.result
            self._bag.put_answer(self._topics.result(result.domain), result_of(self._config.site, result))
        elif (event := event_of(self._config.site, command, self._clock.wall_s())) is not None:
            self._bag.put_event(self._topics.event, event)

    async def run(self) -> NoReturn:
        """Be on the bus for ever, whatever becomes of the broker."""
        await first_of(self._take_orders(), self._stay_connected())
        raise AssertionError("neither ends")

    # ---- the connection ----

    async def _stay_connected(self) -> NoReturn:
        pause_s = BACKOFF_S[0]
        while True:
            began_s = self._clock.monotonic_s()
            try:
                await self._connection()
            except (aiomqtt.MqttError, OSError, ValueError) as error:
                self._say(error)
            if self._clock.monotonic_s() - began_s > SAY_AGAIN_S:
                pause_s = BACKOFF_S[0]
            # Spread, so that the controllers of many sites do not all come back to a broker at once.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, BACKOFF_S[1])

    async def _connection(self) -> None:
        """From the first word to the last on one connection."""
        client = self._client()
        await client.__aenter__()
        try:
            self._bag.again()
            self._board.clear()
            await self._subscribe(client)
            await self._presence(client, PRESENT)
            self._log.info("on the bus", broker=self._config.broker, site=self._config.site)
            self._said_s = float("-inf")
            await first_of(self._listen(client), self._look(), *(self._send(client) for _ in range(SENDERS)))
        except asyncio.CancelledError:
            await _within(FAREWELL_S, self._presence(client, STOPPED))
            raise
        finally:
            # The library would wait for a broker that hangs as long as for an answer; keepalive ends the rest.
            await _within(FAREWELL_S, client.__aexit__(None, None, None))

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        for topic in (self._topics.set_filter, *((SET_FILTER,) if self._flex else ())):
            answers = await client.subscribe(topic, qos=AT_LEAST_ONCE)
            if any(getattr(answer, "value", answer) >= REFUSED for answer in answers):
                self._log.error("the broker's access list keeps orders from us", topic=topic)

    def _client(self) -> aiomqtt.Client:
        config = self._config
        lost = site_status(config.site, LOST, self._clock.wall_s(), self._sight(), __version__)
        return aiomqtt.Client(
            self._broker.host,
            self._broker.port,
            username=config.username or None,
            password=self._password,
            identifier=config.client_id or f"rapid-{config.site}",
            protocol=aiomqtt.ProtocolVersion.V311,
            clean_session=False,  # the broker keeps what is ordered while we are away
            will=aiomqtt.Will(self._topics.status, encode(lost), qos=AT_LEAST_ONCE, retain=True),
            tls_context=self._tls,
            timeout=TIMEOUT_S,
            keepalive=KEEPALIVE_S,
            queue_type=cast("type[asyncio.Queue[aiomqtt.Message]]", lambda maxsize: _Incoming(self._sift)),
            logger=_silent(),
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],  # an answer does not wait for the next
        )

    async def _presence(self, client: aiomqtt.Client, state: str) -> None:
        said = site_status(self._config.site, state, self._clock.wall_s(), self._sight(), __version__)
        await client.publish(self._topics.status, encode(said), qos=AT_LEAST_ONCE, retain=True)

    def _say(self, error: Exception) -> None:
        """Mention it now and then, not at every attempt."""
        now_s = self._clock.monotonic_s()
        if now_s - self._said_s >= SAY_AGAIN_S:
            self._said_s = now_s
            self._log.warning("not on the bus", broker=self._config.broker, error=str(error), waiting=len(self._bag))

    # ---- out ----

    async def _look(self) -> NoReturn:
        """Hang what is due on the board."""
        while True:
            status, wall_s = self._sight(), self._clock.wall_s()
            states = {
                self._topics.domain(it.domain): domain_state(self._config.site, it, status, wall_s)
                for it in status.domains
            } | {self._topics.node(it.node): node_state(self._config.site, it, wall_s) for it in status.nodes}
            for topic in self._board.due(states, self._clock.monotonic_s()):
                self._bag.put_state(topic, encode(states[topic]))
            if self._flex is not None:
                for payload in self._flex.due(status, wall_s, self._clock.monotonic_s()):
                    self._bag.put_power_state(self._flex.topic, payload)
            await asyncio.sleep(LOOK_S)

    async def _send(self, client: aiomqtt.Client) -> NoReturn:
        while True:
            letter = await self._bag.take()
            await client.publish(letter.topic, letter.payload, qos=AT_LEAST_ONCE, retain=letter.retain)
            await self._sent(letter)

    async def _sent(self, letter: Letter) -> None:
        if letter.number:
            self._bag.delivered(letter.number)
            await self._inbox.put(Delivered(0.0, (letter.number,)))

    # ---- in ----

    async def _listen(self, client: aiomqtt.Client) -> None:
        """Wait for the end of the connection; messages are sifted as they are read."""
        async for _ in client.messages:
            raise AssertionError("nothing stays in the queue")

    def _sift(self, message: aiomqtt.Message) -> None:
        payload = bytes(message.payload)
        try:
            orders = self._orders_in(message, payload)
            if orders and not self._orders.put(orders):
                self._say_crowded()
        except Exception:
            # Our own mistake, but one that a stranger's message has found: it must not take the connection with it.
            self._log.exception("a message was not understood", topic=str(message.topic))

    def _orders_in(self, message: aiomqtt.Message, payload: bytes) -> tuple[BudgetOrder, ...]:
        topic = str(message.topic)
        if self._flex is None or not message.topic.matches(SET_FILTER):
            order = self._sieve.order(topic, payload, retained=message.retain)
            return () if order is None else (order,)
        if message.retain:
            return ()
        try:
            return self._flex.orders(topic, payload)
        except (BadSignature, Malformed) as error:
            # The contract has no answer for it, so it is an event like others.
            if self._allowance.take():
                self._warn(topic, f"a load target was refused: it {error}")
            return ()

    def _say_crowded(self) -> None:
        """Somebody with a good key sends more than can be taken: say so now and then."""
        now_s = self._clock.monotonic_s()
        if now_s - self._crowded_s >= SAY_AGAIN_S:
            self._crowded_s = now_s
            dropped = self._orders.dropped
            self._warn("bus", f"orders come faster than they can be taken; {dropped} were dropped, without an answer")

    def _warn(self, about: str, text: str) -> None:
        """Say it on the bus and in the log."""
        self.tell(Notice("warning", about, text))
        self._log.warning(text, about=about)

    async def _take_orders(self) -> NoReturn:
        """One after the other into the loop, each answered before the next."""
        while True:
            orders = await self._orders.take()
            with contextlib.suppress(Unreachable):  # we stop: their sender has no answer, and will send them again
                await self._inbox.ask(BudgetOrdered(0.0, self._clock.wall_s(), orders))


async def _within(time_s: float, work: Awaitable[object]) -> None:
    """Do it if it can be done in that time."""
    with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
        async with asyncio.timeout(time_s):
            await work


class _Incoming(asyncio.Queue[aiomqtt.Message]):
    """Where aiomqtt leaves what it has read: nothing stays."""

    def __init__(self, sift: Callable[[aiomqtt.Message], None]) -> None:
        super().__init__()
        self._sift = sift

    def put_nowait(self, item: aiomqtt.Message) -> None:
        self._sift(item)


def _silent() -> logging.Logger:
    """For what the library says besides the errors that it raises."""
    logger = logging.getLogger("rapid.mqtt")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


def _tls_context(config: MqttTable) -> ssl.SSLContext | None:
    if config.tls is None:
        return None
    where = "mqtt.tls.ca"
    try:
        context = ssl.create_default_context(cafile=copy_of(config.tls.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if config.tls.cert is not None:
            where = "mqtt.tls.cert"
            key = config.tls.key and copy_of(config.tls.key)
            context.load_cert_chain(copy_of(config.tls.cert), key, password="")
    except (OSError, ssl.SSLError) as error:
        raise ConfigInvalid(where, f"cannot be used: {str(error).lower()}") from error
    return context


def _password(config: MqttTable) -> str | None:
    if config.password_file is None:
        return None
    try:
        return copy_of(config.password_file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid("mqtt.password_file", f"cannot read {config.password_file}: {error}") from error
