// A toy engine under RAPID's care, in C++, from proto/rapid/v1/engine.proto alone.
//
//     make && build/engine --instance p0 --role prefill --node h1 --gpu GPU-1b2c... --address unix:/run/rapid/controller.sock
//
// RoleChange is the engine's side of a role change, as the comments of engine.proto tell it; Engine carries its words.
// What a real engine replaces is marked ENGINE. Requests are not part of it: a line "3" on stdin says that it has three.

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <iostream>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include "rapid/v1/engine.grpc.pb.h"

using namespace rapid::v1;
using Clock = std::chrono::steady_clock;

namespace {

constexpr double kSwitchS = 0.2;
constexpr double kLookS = 0.02;
constexpr double kFirstPauseS = 0.1, kLongestPauseS = 2.0;

std::atomic<bool> stopping{false};
std::atomic<unsigned> requests{0};  // ENGINE: queued, running, or with KV that a peer has yet to pull

double Now() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

bool Above(const Mark& a, const Mark& b) {
  return a.epoch() != b.epoch() ? a.epoch() > b.epoch() : a.seq() > b.seq();
}

std::string Words(const Mark& mark) { return std::to_string(mark.epoch()) + "." + std::to_string(mark.seq()); }

// Where the engine stands, from SERVING in one role to SERVING in another, or back. Under one lock; the slow steps of
// the engine run outside it, in Engine.
class RoleChange {
 public:
  RoleChange(Role role, std::string incarnation)
      : incarnation_(std::move(incarnation)), role_(role), old_(role), target_(role) {}

  Phase phase() const { return phase_; }
  Role role() const { return role_; }
  Role target() const { return target_; }

  void Fill(EngineHello* hello) const {
    hello->set_incarnation(incarnation_);
    hello->set_role(role_);
    hello->set_phase(phase_);
    *hello->mutable_mark() = mark_;
    if (phase_ != PHASE_SERVING && phase_ != PHASE_PARKED && phase_ != PHASE_FAILED) {
      hello->set_from_role(old_);
      hello->set_to_role(target_);
    }
  }

  RoleProgress Progress() const {
    RoleProgress progress;
    *progress.mutable_mark() = mark_;
    progress.set_phase(phase_);
    progress.set_role(role_);
    progress.set_error(error_);
    if (phase_ == PHASE_DRAINING) progress.set_requests_left(requests);
    return progress;
  }

  void Welcomed(uint64_t epoch) {
    Mark mark;
    mark.set_epoch(epoch);
    if (Above(mark, mark_)) mark_ = mark;
  }

  // True: the engine is to close its doors. Taken or refused, the mark is heard: it is not taken when it comes again.
  bool Ordered(const RoleOrder& order, bool* leave_parking) {
    if (order.incarnation() != incarnation_ || !Above(order.mark(), mark_)) return false;
    mark_ = order.mark();
    if (std::string refusal = Refusal(order); !refusal.empty()) {
      if (phase_ == PHASE_SERVING || phase_ == PHASE_PARKED) error_ = refusal;
      return false;
    }
    doing_ = order.mark();
    error_.clear();
    park_ = order.park();
    if (phase_ == PHASE_PARKED) {
      home_ = PHASE_PARKED;
      old_ = role_;
      target_ = park_ ? role_ : order.role();
      *leave_parking = !park_;
      return false;
    }
    if (!park_ && order.role() == role_) {
      if (phase_ == PHASE_DRAINING) RollBack("");
      return false;
    }
    bool closed = phase_ == PHASE_DRAINING;
    phase_ = PHASE_DRAINING;
    home_ = PHASE_SERVING;
    old_ = role_;
    target_ = park_ ? role_ : order.role();
    drain_s_ = order.drain_s();
    quiet_s_ = order.quiet_s();
    drained_by_ = Now() + drain_s_;
    empty_since_ = -1;
    return !closed;
  }

  void Cancelled(const RoleCancel& cancel) {
    if (cancel.incarnation() != incarnation_) return;
    bool overtaken = Above(cancel.mark(), mark_);
    if (overtaken) mark_ = cancel.mark();
    if (phase_ == PHASE_DRAINING && !Above(doing_, cancel.mark())) {
      RollBack("cancelled by the controller");
    } else if (overtaken && (phase_ == PHASE_SERVING || phase_ == PHASE_PARKED)) {
      error_ = "cancelled before it came";
    }
  }

  // To be called often while it drains. True: the phase has changed.
  bool Look(unsigned left) {
    if (phase_ != PHASE_DRAINING) return false;
    double now = Now();
    if (left > 0) {
      empty_since_ = -1;
    } else if (empty_since_ < 0) {
      empty_since_ = now;
    }
    if (left == 0 && now >= empty_since_ + quiet_s_ && now < drained_by_) {
      if (park_) {
        phase_ = PHASE_PARKED;
      } else {
        Switch();
      }
      return true;
    }
    if (now < drained_by_) return false;
    RollBack("the drain took too long, " + std::to_string(left) + " requests left");
    return true;
  }

  void Switch() {
    phase_ = PHASE_SWITCHING;
    old_ = role_;
    role_ = target_;
  }

  void Warm() { phase_ = PHASE_WARMING; }

  void Opened() {
    if (phase_ == PHASE_WARMING) error_.clear();
    phase_ = PHASE_SERVING;
  }

  void RollBack(const std::string& error) {
    role_ = target_ = old_;
    error_ = error;
    phase_ = home_ == PHASE_PARKED ? PHASE_PARKED : PHASE_ROLLING_BACK;
  }

 private:
  std::string Refusal(const RoleOrder& order) const {
    if (Now() > order.not_after_s()) return "order " + Words(order.mark()) + " came too late";
    if (order.role() != ROLE_PREFILL && order.role() != ROLE_DECODE) return "role is none of prefill, decode";
    if (!(order.drain_s() > 0)) return "drain_s must be above 0 s";
    bool hears = phase_ == PHASE_SERVING || phase_ == PHASE_DRAINING || phase_ == PHASE_PARKED;
    return hears ? "" : "is busy with " + Words(doing_);
  }

  const std::string incarnation_;
  Phase phase_ = PHASE_SERVING, home_ = PHASE_SERVING;
  Role role_, old_, target_;
  Mark mark_, doing_;  // no order at or below mark_ is taken; doing_ is the last one taken
  bool park_ = false;
  double drain_s_ = 0, quiet_s_ = 0, drained_by_ = 0, empty_since_ = -1;
  std::string error_;
};

class Engine {
 public:
  Engine(std::map<std::string, std::string> given, Role role)
      : given_(std::move(given)), change_(role, std::to_string(std::random_device{}()) + std::to_string(getpid())) {}

  // Attach again and again, with a growing pause, until it is told to stop.
  void Run() {
    std::thread driving([this] { Drive(); });
    double pause = kFirstPauseS;
    while (!stopping) {
      double began = Now();
      grpc::Status status = Attach();
      if (!stopping) std::cerr << "controller: " << status.error_message() << "; tries again" << std::endl;
      if (Now() - began > 5) pause = kFirstPauseS;
      Sleep(pause);
      pause = std::min(2 * pause, kLongestPauseS);
    }
    driving.join();
  }

 private:
  using Stream = grpc::ClientReaderWriter<AttachRequest, AttachResponse>;

  // One stream, from hello to its end. It is read here, and written under the lock, by whoever has something to say.
  grpc::Status Attach() {
    grpc::ChannelArguments options;  // without these two a cut cable is not noticed
    options.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 2000);
    options.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 2000);
    // For TLS: grpc::SslCredentials({ca, key, cert}) from the three PEM files.
    auto channel = grpc::CreateCustomChannel(given_["address"], grpc::InsecureChannelCredentials(), options);
    auto stub = EngineControl::NewStub(channel);
    grpc::ClientContext context;
    auto stream = stub->Attach(&context);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      AttachRequest first, where;
      Introduce(first.mutable_hello());
      stream->Write(first);
      *where.mutable_progress() = change_.Progress();
      stream->Write(where);
      stream_ = stream.get();
      context_ = &context;
    }
    AttachResponse told;
    while (stream->Read(&told)) Hear(told);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stream_ = nullptr;
      context_ = nullptr;
    }
    return stream->Finish();
  }

  void Introduce(EngineHello* hello) {
    hello->set_instance(given_["instance"]);
    hello->set_node(given_["node"]);
    hello->add_gpus(given_["gpu"]);
    hello->add_roles(ROLE_PREFILL);
    hello->add_roles(ROLE_DECODE);
    hello->set_engine_time_s(Now());
    hello->set_switch_s(kSwitchS);
    hello->set_engine("toy engine in C++");
    hello->set_parks(true);
    change_.Fill(hello);
  }

  void Hear(const AttachResponse& told) {
    std::lock_guard<std::mutex> lock(mutex_);
    bool leave_parking = false;
    switch (told.body_case()) {
      case AttachResponse::kWelcome:
        change_.Welcomed(told.welcome().epoch());
        std::cerr << "attached, epoch " << told.welcome().epoch() << std::endl;
        return;
      case AttachResponse::kOrder:
        if (change_.Ordered(told.order(), &leave_parking)) {
          std::cerr << "closed" << std::endl;  // ENGINE: take no request from now on
        }
        if (leave_parking) {
          change_.target() == change_.role() ? change_.Warm() : change_.Switch();
        }
        break;
      case AttachResponse::kCancel:
        change_.Cancelled(told.cancel());
        break;
      default:
        return;  // of a later version
    }
    Tell();
  }

  // The slow steps, one at a time, outside the lock: until it serves again the engine is deaf to orders anyway.
  void Drive() {
    while (true) {
      Phase phase;
      {
        std::lock_guard<std::mutex> lock(mutex_);
        if (stopping) break;
        if (change_.Look(requests)) Tell();
        phase = change_.phase();
      }
      if (phase == PHASE_SWITCHING) {
        Sleep(kSwitchS);  // ENGINE: become change_.role(); RollBack() instead of Warm() if it has refused
        std::lock_guard<std::mutex> lock(mutex_);
        change_.Warm();
        Tell();
      } else if (phase == PHASE_WARMING || phase == PHASE_ROLLING_BACK) {
        std::lock_guard<std::mutex> lock(mutex_);
        change_.Opened();  // ENGINE: take requests, in change_.role()
        Tell();
      } else {
        Sleep(kLookS);
      }
    }
    std::lock_guard<std::mutex> lock(mutex_);
    if (stream_ == nullptr) return;
    AttachRequest last;
    last.mutable_goodbye()->set_reason("stopped");
    stream_->Write(last);
    stream_->WritesDone();
  }

  // The present state, if anybody hears it. With the lock held.
  void Tell() {
    RoleProgress progress = change_.Progress();
    std::cerr << "order " << Words(progress.mark()) << ": " << Phase_Name(progress.phase()) << " as "
              << Role_Name(progress.role()) << " " << progress.error() << std::endl;
    if (stream_ == nullptr) return;
    AttachRequest request;
    *request.mutable_progress() = progress;
    if (!stream_->Write(request)) context_->TryCancel();
  }

  static void Sleep(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

  std::map<std::string, std::string> given_;
  std::mutex mutex_;  // over all that follows
  RoleChange change_;
  Stream* stream_ = nullptr;
  grpc::ClientContext* context_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, std::string> given;
  for (int index = 1; index + 1 < argc; index += 2) given[std::string(argv[index]).substr(2)] = argv[index + 1];
  for (const char* name : {"instance", "role", "node", "gpu", "address"}) {
    if (!given.count(name)) {
      std::cerr << "--" << name << " is missing" << std::endl;
      return 2;
    }
  }
  std::signal(SIGTERM, [](int) { stopping = true; });
  std::thread([] {
    for (std::string line; std::getline(std::cin, line);) requests = static_cast<unsigned>(std::stoul(line));
  }).detach();
  Engine(given, given["role"] == "decode" ? ROLE_DECODE : ROLE_PREFILL).Run();
}
