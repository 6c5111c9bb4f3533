// SPDX-License-Identifier: Apache-2.0
// Two fake machines and the real processes that move a guest from one to the other over the loopback
// interface: real sockets and frames; only module and machine are fakes.  The source's agent is one process
// group, the target another; "powering off" ends a group.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/base/clock.hpp"
#include "agent/peer/clone.hpp"
#include "agent/peer/receiver.hpp"
#include "agent/source/agent_process.hpp"
#include "tests/sim/fake_machine.hpp"

namespace smig::loopback {

inline constexpr std::int64_t kPatienceMs = 30'000;

inline IpAddress loopback_address() {
    return parse_ip("127.0.0.1").value();
}

inline std::vector<Hold> holds(const std::vector<std::string>& texts) {
    std::vector<Hold> out;
    for (const std::string& text : texts) out.push_back(parse_hold(text).value());
    return out;
}

struct Setup {
    std::vector<std::string> source_holds;
    std::vector<std::string> target_holds;
    std::vector<std::string> refusals;
    std::int64_t alive_ms = 20'000;
    bool target_agrees = true;
    TransferOptions transfer;
    std::string order_socket;
    std::string last_move;
};

// Two fake machines and the processes that move a guest from one to the other.
class World {
public:
    explicit World(Setup setup)
        : setup_(std::move(setup)), source_(make_fake_machine()), target_(make_fake_machine()) {
        fill_guest(*source_, 4711);
        target_->origin = source_.get();
        REQUIRE(::pipe2(outcome_pipe_, O_CLOEXEC) == 0);
        start_target();
    }
    ~World() {
        for (const pid_t group : groups_) {
            ::kill(-group, SIGKILL);
            ::waitpid(group, nullptr, 0);
        }
        ::close(outcome_pipe_[0]);
        ::close(outcome_pipe_[1]);
        ::close(client_);
        ::munmap(shared_, sizeof(Known));
    }
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    void start_source() {
        int ends[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
        source_group_ = fork_group([&] {
            ::close(ends[0]);
            FakePower power(*source_);
            AgentOptions options;
            options.target = "loopback";
            options.port = port_;
            options.limits.alive = setup_.alive_ms;
            options.holds = holds(setup_.source_holds);
            options.insecure = true;
            options.transfer = setup_.transfer;
            options.order_socket = setup_.order_socket;
            options.last_move = setup_.last_move;
            options.started_ns = mono_ns();
            options.plan = []() -> Result<NetworkPlan> {
                NetworkPlan plan;
                plan.peer = plan.stay = loopback_address();
                return plan;
            };
            options.describe = [](const smig_info&) -> Result<SourceDescription> {
                return SourceDescription{"{}", {}};
            };
            options.open_device = [&]() -> Result<std::unique_ptr<Device>> {
                return make_fake_device(*source_);
            };
            options.power = &power;
            options.clone_main = [](CloneStart&) { return false; };
            return run_agent(options, Fd(ends[1]));
        });
        ::close(ends[1]);
        client_ = ends[0];
    }

    void kill_target() { ::kill(-target_group_, SIGKILL); }

    // Only the stop process, which owns the source's move.
    void kill_stop_process() {
        const int owner = source_->owner;
        REQUIRE(owner > 0);
        ::kill(owner, SIGKILL);
    }

    void kill_agent() { ::kill(source_group_, SIGKILL); }

    // The process that fetches for the clone; its guest lives on.
    void kill_clone_process() {
        const int owner = target_->owner;
        REQUIRE(owner > 0);
        ::kill(owner, SIGKILL);
        REQUIRE(eventually([&] { return process_gone(owner); }));
    }

    // What the clone's supervisor does then.
    void adopt_clone() {
        (void)fork_group([&] {
            handover_.stay = handover_.source_stay = loopback_address();
            handover_.stay_prefix = 8;
            handover_.control_port = shared_->control_port;
            handover_.epoch = shared_->epoch;
            handover_.boot_nonce = shared_->nonce;
            return go_on_as_clone(CloneAt::owing);
        });
    }

    void cancel() { order("{\"cancel\":true}\n"); }
    void order(const std::string& line) {
        REQUIRE(::send(client_, line.data(), line.size(), MSG_NOSIGNAL) > 0);
    }

    // What the agent tells its client at last; null when it died without a word.
    nlohmann::json verdict() {
        std::string text;
        const std::int64_t until = mono_ms() + kPatienceMs;
        while (mono_ms() < until) {
            pollfd entry{client_, POLLIN, 0};
            if (::poll(&entry, 1, 100) <= 0) continue;
            char buffer[4096];
            const ssize_t got = ::read(client_, buffer, sizeof(buffer));
            if (got <= 0) return {};
            text.append(buffer, static_cast<std::size_t>(got));
            for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n')) {
                auto message = nlohmann::json::parse(text.substr(0, end));
                text.erase(0, end + 1);
                if (message.contains("verdict"))
                    return nlohmann::json::parse(message["json"].get<std::string>());
            }
        }
        FAIL("no verdict");
        return {};
    }

    // What the clone reports; a verdict of 0 when it never did.
    MoveOutcome clone_outcome() {
        MoveOutcome outcome;
        outcome.verdict = Verdict{};
        pollfd entry{outcome_pipe_[0], POLLIN, 0};
        if (::poll(&entry, 1, kPatienceMs) > 0)
            CHECK(::read(outcome_pipe_[0], &outcome, sizeof(outcome)) == sizeof(outcome));
        return outcome;
    }

    template <class Condition>
    bool eventually(Condition condition) {
        const std::int64_t until = mono_ms() + kPatienceMs;
        while (!condition()) {
            if (mono_ms() > until) return false;
            ::poll(nullptr, 0, 5);
        }
        return true;
    }

    FakeMachine& source() { return *source_; }
    FakeMachine& target() { return *target_; }

private:
    template <class Body>
    pid_t fork_group(Body body) {
        const pid_t child = ::fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            ::setpgid(0, 0);
            ::_exit(body());
        }
        ::setpgid(child, child);
        groups_.push_back(child);
        return child;
    }

    void start_target() {
        SocketAddress any;
        any.length = to_sockaddr(loopback_address(), 0, any.storage);
        auto probe = listen_on(any, 1);
        REQUIRE(probe.ok());
        port_ = local_port(probe.value().get());
        probe.value().reset();
        target_group_ = fork_group([&] { return be_target(); });
    }

    int be_target() {
        ReceiverOptions options;
        options.listen.length = to_sockaddr(loopback_address(), port_, options.listen.storage);
        options.holds = Holds(holds(setup_.target_holds));
        options.open_device = [&]() -> Result<std::unique_ptr<Device>> {
            return make_fake_device(*target_,
                                    [&](const std::string& handover) { return be_clone(handover); });
        };
        options.check = [&](const smig_info&, const std::string&) { return setup_.refusals; };
        // Not as text: a real hand-over has no loopback addresses.
        options.handover = [this](const IpAddress& local, const IpAddress& from, std::uint16_t port,
                                  const WireId& epoch, const WireId& nonce) -> Result<std::string> {
            Handover& handover = handover_;
            handover.stay = local;
            handover.stay_prefix = 8;
            handover.source_stay = from;
            handover.control_port = port;
            handover.epoch = epoch;
            handover.boot_nonce = nonce;
            shared_->control_port = port;
            shared_->epoch = epoch;
            shared_->nonce = nonce;
            return std::string("handed over");
        };
        options.log = [](const std::string&) {};
        (void)run_receiver(options);
        return 1;
    }

    int be_clone(const std::string& blob) {
        if (blob != "handed over") return 1;
        return go_on_as_clone(CloneAt::fenced);
    }

    // From GO on, or where another process of the clone died while pages were owed.
    int go_on_as_clone(CloneAt at) {
        auto device = make_fake_device(*target_);
        if (!device->begin(SMIG_ROLE_TARGET)) return 1;
        FakePower power(*target_);
        const Holds waits(holds(setup_.target_holds));
        MoveOutcome outcome;
        CloneContext context{*device,
                             handover_,
                             0,
                             [] { return Result<void>{}; },
                             [](unsigned) { return std::vector<std::string>{}; },
                             power,
                             waits,
                             {},
                             outcome,
                             [&] { write_outcome(outcome_pipe_[1], outcome); },
                             {},
                             at};
        return run_clone(context) ? 0 : 1;
    }

    static void write_outcome(int fd, const MoveOutcome& outcome) {
        CHECK(::write(fd, &outcome, sizeof(outcome)) > 0);
    }

    // What a hand-over says, for a process that was not there.
    struct Known {
        std::uint16_t control_port = 0;
        WireId epoch{};
        WireId nonce{};
    };
    static Known* make_shared() {
        void* memory =
            ::mmap(nullptr, sizeof(Known), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        REQUIRE(memory != MAP_FAILED);
        return new (memory) Known;
    }
    // A zombie is as good as gone.
    static bool process_gone(pid_t pid) {
        siginfo_t info{};
        return ::kill(pid, 0) != 0 ||
               ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
               info.si_pid == pid;
    }

    Setup setup_;
    Known* shared_ = make_shared();
    Handover handover_;  // in the target's process
    FakeMachinePtr source_;
    FakeMachinePtr target_;
    std::uint16_t port_ = 0;
    pid_t source_group_ = 0;
    pid_t target_group_ = 0;
    std::vector<pid_t> groups_;
    int client_ = -1;
    int outcome_pipe_[2] = {-1, -1};
};

inline void check_moved(World& world) {
    const MoveOutcome outcome = world.clone_outcome();
    CHECK(outcome.verdict == Verdict::moved);
    CHECK(world.eventually([&] { return world.source().powered_off.load(); }));
    CHECK(world.target().released);
    CHECK_FALSE(world.target().reset);
    CHECK_FALSE(world.source().guest_runs);
    CHECK(world.source().restart_forbidden);
    CHECK(world.source().flows_set == 1);
    CHECK(world.target().flows_set == 1);
    CHECK(differing_pages(world.source(), world.target()) == 0);
}

}  // namespace smig::loopback
