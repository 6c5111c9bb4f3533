// SPDX-License-Identifier: Apache-2.0
// Agent to agent over the loopback interface: the real processes, sockets and frames; only module and machine
// are fakes. The source's agent is one process group, the target another; "powering off" ends a group.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/base/clock.hpp"
#include "agent/peer/clone.hpp"
#include "agent/peer/receiver.hpp"
#include "agent/source/agent_process.hpp"
#include "agent/source/order_socket.hpp"
#include "tests/sim/fake_machine.hpp"

using namespace smig;

namespace {

constexpr std::int64_t kPatienceMs = 30'000;

IpAddress loopback() {
    return parse_ip("127.0.0.1").value();
}

std::vector<Hold> holds(const std::vector<std::string>& texts) {
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
                plan.peer = plan.stay = loopback();
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
        any.length = to_sockaddr(loopback(), 0, any.storage);
        auto probe = listen_on(any, 1);
        REQUIRE(probe.ok());
        port_ = local_port(probe.value().get());
        probe.value().reset();
        target_group_ = fork_group([&] { return be_target(); });
    }

    int be_target() {
        ReceiverOptions options;
        options.listen.length = to_sockaddr(loopback(), port_, options.listen.storage);
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
            return std::string("handed over");
        };
        options.log = [](const std::string&) {};
        (void)run_receiver(options);
        return 1;
    }

    int be_clone(const std::string& blob) {
        if (blob != "handed over") return 1;
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
                             [&] { write_outcome(outcome_pipe_[1], outcome); }};
        return run_clone(context) ? 0 : 1;
    }

    static void write_outcome(int fd, const MoveOutcome& outcome) {
        CHECK(::write(fd, &outcome, sizeof(outcome)) > 0);
    }

    Setup setup_;
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

void check_moved(World& world) {
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

// Passes that take a while: a capped rate, and no end of them.
TransferOptions slow_passes() {
    TransferOptions transfer;
    transfer.bandwidth_bytes_per_s = 4'000'000;
    transfer.passes.downtime_limit_ms = 0;
    transfer.compress = Compress::off;
    return transfer;
}

std::string own_path(const char* name) {
    return (std::filesystem::temp_directory_path() / (std::string(name) + std::to_string(::getpid())))
        .string();
}

void check_rolled_back(World& world, const std::string& reason) {
    const nlohmann::json report = world.verdict();
    CHECK(report["verdict"] == "rolled-back");
    CHECK_MESSAGE(report["reason"].get<std::string>().find(reason) != std::string::npos,
                  report["reason"].get<std::string>());
    CHECK(world.source().guest_runs);
    CHECK(world.source().state == SMIG_STATE_IDLE);
    CHECK_FALSE(world.source().powered_off);
    CHECK_FALSE(world.target().released);
}

}  // namespace

TEST_CASE("a guest moves, page for page, and the source powers off") {
    World world({});
    world.start_source();
    check_moved(world);
}

TEST_CASE("what the source measured reaches the clone's report") {
    Setup setup;
    setup.transfer.compress = Compress::off;
    World world(setup);
    world.start_source();
    const MoveOutcome outcome = world.clone_outcome();
    CHECK(outcome.sent.data_pages > 0);
    CHECK(outcome.sent.zero_pages > 0);
    CHECK(outcome.sent.payload_bytes > outcome.sent.data_pages * kPageBytes);
    CHECK(outcome.sent.captured_ns <= outcome.sent.image_end_ns);
    CHECK(outcome.sent.image_end_ns <= outcome.sent.ready_ns);
    CHECK(outcome.sent.jump_ns <= outcome.sent.alive_ns);
    CHECK(outcome.sent.alive_ns <= outcome.sent.commit_ns);
}

TEST_CASE("a target that does not fit is refused by name and the guest is never stopped") {
    Setup setup;
    setup.refusals = {"the target lacks CPU feature avx9"};
    World world(setup);
    world.start_source();
    const nlohmann::json report = world.verdict();
    CHECK(report["verdict"] == "refused");
    CHECK(report["reason"].get<std::string>().find("avx9") != std::string::npos);
    CHECK_FALSE(world.source().ever_frozen);
}

TEST_CASE("a stop that fails names its step and leaves the guest running") {
    World world({});
    world.source().fail_step = SMIG_STEP_SUSPEND_DEVICES + 1;
    world.start_source();
    check_rolled_back(world, "suspend_devices");
}

TEST_CASE("a jump that comes back leaves the guest running on the source") {
    World world({});
    world.target().fail_step = SMIG_STEP_JUMP + 1;
    world.start_source();
    check_rolled_back(world, "jump");
}

TEST_CASE("cancelled before the stop: the guest is never stopped") {
    Setup setup;
    setup.target_holds = {"target-landed:1500"};
    World world(setup);
    world.start_source();
    CHECK(world.eventually([&] { return world.target().state == SMIG_STATE_TARGET; }));
    world.cancel();
    check_rolled_back(world, "cancelled");
    CHECK_FALSE(world.source().ever_frozen);
}

TEST_CASE("the target dies while pages arrive: the guest goes on at the source, and a second move succeeds") {
    Setup setup;
    setup.target_holds = {"target-loading:60000"};
    World world(setup);
    world.start_source();
    CHECK(world.eventually([&] { return world.source().state == SMIG_STATE_CAPTURED; }));
    CHECK(world.eventually([&] { return world.target().state == SMIG_STATE_TARGET; }));
    world.kill_target();
    check_rolled_back(world, "");
}

TEST_CASE("the target dies between READY and JUMP: the guest goes on at the source") {
    Setup setup;
    setup.source_holds = {"source-awaiting-alive:500"};
    World world(setup);
    world.start_source();
    CHECK(world.eventually([&] { return world.target().state == SMIG_STATE_LANDED; }));
    world.kill_target();
    check_rolled_back(world, "");
}

TEST_CASE("the stop process dies while it sends: the module undoes, the supervisor tells") {
    Setup setup;
    setup.source_holds = {"source-sending:60000"};
    World world(setup);
    world.start_source();
    CHECK(world.eventually([&] { return world.source().state == SMIG_STATE_CAPTURED; }));
    world.kill_stop_process();
    check_rolled_back(world, "stop process died");
    CHECK(world.eventually([&] { return world.target().state == SMIG_STATE_TARGET; }));
}

TEST_CASE("the stop process dies between commit and GO: the supervisor gives the guest") {
    Setup setup;
    setup.source_holds = {"source-given:60000"};
    World world(setup);
    world.start_source();
    CHECK(world.eventually([&] { return world.source().state == SMIG_STATE_GIVEN; }));
    CHECK_FALSE(world.target().released);
    world.kill_stop_process();
    check_moved(world);
}

TEST_CASE("a clone that wakes too late hears VOID and resets its machine") {
    Setup setup;
    setup.alive_ms = 300;
    setup.target_holds = {"clone-fenced:1000"};
    World world(setup);
    world.start_source();
    check_rolled_back(world, "no answer in time");
    CHECK(world.eventually([&] { return world.target().reset.load(); }));
    CHECK_FALSE(world.target().released);
}

TEST_CASE("the stop process dies while the clone wakes: the supervisor answers VOID") {
    Setup setup;
    setup.target_holds = {"clone-fenced:1000"};
    World world(setup);
    world.start_source();
    CHECK(world.eventually([&] { return world.target().state == SMIG_STATE_CLONE; }));
    world.kill_stop_process();
    check_rolled_back(world, "stop process died");
    CHECK(world.eventually([&] { return world.target().reset.load(); }));
    CHECK_FALSE(world.target().released);
}

TEST_CASE("stop-copy: no pass, and everything goes in the stop") {
    Setup setup;
    setup.transfer.precopy = false;
    World world(setup);
    world.start_source();
    const MoveOutcome outcome = world.clone_outcome();
    CHECK(outcome.verdict == Verdict::moved);
    CHECK(outcome.sent.passes == 0);
    CHECK(outcome.sent.stop_reason == SMIG_STOP_NO_PASSES);
    CHECK(outcome.sent.send_pages == outcome.sent.image_pages);
    CHECK(outcome.sent.data_pages + outcome.sent.zero_pages == outcome.sent.image_pages);
    CHECK(world.source().passes == 0);
    CHECK(differing_pages(world.source(), world.target()) == 0);
}

TEST_CASE("precopy: passes bring nearly all, the stop what changed last, and nothing is missed") {
    Setup setup;
    setup.transfer.passes.downtime_limit_ms = 0;
    setup.transfer.passes.max_passes = 4;
    World world(setup);
    world.start_source();
    const MoveOutcome outcome = world.clone_outcome();
    CHECK(outcome.verdict == Verdict::moved);
    CHECK(outcome.sent.passes >= 2);
    CHECK(outcome.sent.passes <= 4);
    CHECK(outcome.sent.pass_data_pages > 1000);
    CHECK(outcome.sent.pass_same_pages > 0);
    CHECK(outcome.sent.send_pages < outcome.sent.image_pages / 4);
    CHECK(outcome.sent.data_pages <= outcome.sent.send_pages);
    CHECK(differing_pages(world.source(), world.target()) == 0);
}

TEST_CASE("a guest of which all fits the limit is stopped after one pass") {
    World world({});
    world.start_source();
    const MoveOutcome outcome = world.clone_outcome();
    CHECK(outcome.verdict == Verdict::moved);
    CHECK(outcome.sent.passes == 1);
    CHECK(outcome.sent.stop_reason == SMIG_STOP_WITHIN_LIMIT);
    CHECK(differing_pages(world.source(), world.target()) == 0);
}

TEST_CASE("packed pages, in passes and in the stop") {
    Setup setup;
    setup.transfer.compress = Compress::on;
    World world(setup);
    world.start_source();
    check_moved(world);
}

TEST_CASE("cancelled in a pass: the guest is never stopped, and the target is free again") {
    Setup setup;
    setup.transfer = slow_passes();
    World world(setup);
    world.start_source();
    CHECK(world.eventually([&] { return world.source().passes > 0; }));
    world.cancel();
    check_rolled_back(world, "cancelled");
    CHECK_FALSE(world.source().ever_frozen);
    CHECK_FALSE(world.source().tracking);
    CHECK(world.eventually([&] { return world.target().state == SMIG_STATE_TARGET; }));
}

TEST_CASE("the target dies in a pass: the guest is never stopped") {
    Setup setup;
    setup.transfer = slow_passes();
    World world(setup);
    world.start_source();
    CHECK(world.eventually([&] { return world.target().state == SMIG_STATE_LANDED; }));
    CHECK(world.eventually([&] { return world.source().passes > 0; }));
    world.kill_target();
    check_rolled_back(world, "");
    CHECK_FALSE(world.source().ever_frozen);
}

TEST_CASE("the stop process dies in a pass: the module undoes, the supervisor tells") {
    Setup setup;
    setup.transfer = slow_passes();
    World world(setup);
    world.start_source();
    CHECK(world.eventually([&] { return world.source().passes > 0; }));
    world.kill_stop_process();
    check_rolled_back(world, "stop process died");
    CHECK_FALSE(world.source().ever_frozen);
}

TEST_CASE("switch-now in a pass: the rest of it goes in the stop") {
    Setup setup;
    setup.transfer = slow_passes();
    World world(setup);
    world.start_source();
    CHECK(world.eventually([&] { return world.source().passes > 0; }));
    world.order("{\"switch_now\":true}\n");
    const MoveOutcome outcome = world.clone_outcome();
    CHECK(outcome.verdict == Verdict::moved);
    CHECK(outcome.sent.stop_reason == SMIG_STOP_ASKED);
    CHECK(outcome.sent.passes == 1);
    CHECK(outcome.sent.data_pages > outcome.sent.pass_data_pages / 10);
    CHECK(differing_pages(world.source(), world.target()) == 0);
}

TEST_CASE("orders come by the socket, which is gone afterwards, and the last report is kept") {
    Setup setup;
    setup.transfer = slow_passes();
    setup.order_socket = own_path("smig-orders");
    setup.last_move = own_path("smig-last/move") + ".json";
    World world(setup);
    world.start_source();
    CHECK(world.eventually([&] { return world.source().passes > 0; }));
    const auto status = give_order(setup.order_socket, "{\"status\":true}");
    REQUIRE(status.ok());
    const auto numbers = nlohmann::json::parse(status.value());
    CHECK(numbers["state"] == "source-passing");
    CHECK(numbers["pass"] == 1);
    CHECK(nlohmann::json::parse(give_order(setup.order_socket, "nonsense").value()).contains("error"));
    CHECK_FALSE(OrderSocket::listen(setup.order_socket).ok());
    CHECK((std::filesystem::status(setup.order_socket).permissions() & std::filesystem::perms::mask) ==
          (std::filesystem::perms::owner_read | std::filesystem::perms::owner_write));
    CHECK(give_order(setup.order_socket, "{\"cancel\":true}").ok());
    check_rolled_back(world, "cancelled");
    CHECK(world.eventually([&] { return !std::filesystem::exists(setup.order_socket); }));
    std::ifstream file(setup.last_move);
    const auto kept = nlohmann::json::parse(file, nullptr, false);
    CHECK(kept.is_object());
    CHECK(kept["verdict"] == "rolled-back");
    std::filesystem::remove_all(std::filesystem::path(setup.last_move).parent_path());
}

TEST_CASE("an abandoned order socket is replaced") {
    const std::string path = own_path("smig-stale");
    {
        auto first = OrderSocket::listen(path);
        REQUIRE(first.ok());
        (void)first.value().release_fd();
        REQUIRE(std::filesystem::exists(path));
        CHECK(OrderSocket::listen(path).ok());
    }
    CHECK_FALSE(std::filesystem::exists(path));
}
