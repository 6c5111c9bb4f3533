// SPDX-License-Identifier: Apache-2.0
// Agent to agent over the loopback interface.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "agent/source/order_socket.hpp"
#include "tests/sim/loopback_world.hpp"

using namespace smig;
using namespace smig::loopback;

namespace {

// Passes that take a while: a capped rate, and no end of them.
TransferOptions slow_passes() {
    TransferOptions transfer;
    transfer.mode = Mode::precopy;
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
    setup.transfer.mode = Mode::stop_copy;
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
    setup.transfer.mode = Mode::precopy;
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

TEST_CASE("the agent dies in a pass: its stop process undoes, and the target is free again") {
    Setup setup;
    setup.transfer = slow_passes();
    World world(setup);
    world.start_source();
    CHECK(world.eventually([&] { return world.source().passes > 0; }));
    world.kill_agent();
    CHECK(world.eventually([&] { return world.source().state == SMIG_STATE_IDLE; }));
    CHECK(world.source().guest_runs);
    CHECK_FALSE(world.source().ever_frozen);
    CHECK(world.eventually([&] { return world.target().state == SMIG_STATE_TARGET; }));
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
