// SPDX-License-Identifier: Apache-2.0
// Moves that leave pages owed, agent to agent over the loopback interface, with a guest that runs on and
// waits for its pages, and with processes that die under it.
#include <doctest/doctest.h>

#include "tests/sim/loopback_world.hpp"

using namespace smig;
using namespace smig::loopback;

namespace {

Setup in_mode(Mode mode) {
    Setup setup;
    setup.transfer.mode = mode;
    setup.transfer.compress = Compress::off;
    return setup;
}

// Every owed page came, once, or was let go of; the guest's memory is whole and its waits have ended.
void check_drained(World& world, bool once) {
    const FakeMachine& source = world.source();
    FakeMachine& target = world.target();
    CHECK(target.state != SMIG_STATE_OWING);
    CHECK(target.missing_pages == 0);
    std::uint64_t owed = 0;
    for (std::uint64_t pfn = 0; pfn < kFakeTop; ++pfn) {
        if (!source.owed[pfn]) {
            CHECK(target.installs[pfn] == 0);
            continue;
        }
        ++owed;
        CHECK(target.installs[pfn] == (target.freed[pfn] ? 0 : 1));
        if (once) CHECK(target.arrivals[pfn] <= 1);
    }
    CHECK(owed == source.owed_at_capture);
    CHECK(world.eventually([&] { return target.waits == target.waits_over; }));
    CHECK(differing_pages(source, target) == 0);
}

MoveOutcome check_moves(Mode mode) {
    World world(in_mode(mode));
    // So many that the guest meets some of them.
    world.source().restless_pages = 1500;
    world.start_source();
    const MoveOutcome outcome = world.clone_outcome();
    CHECK(outcome.verdict == Verdict::moved);
    CHECK(world.eventually([&] { return world.source().powered_off.load(); }));
    check_drained(world, true);
    CHECK(outcome.sent.owed_pages > 100);
    CHECK(outcome.sent.owed_pages == world.source().owed_at_capture);
    CHECK(outcome.owed.source.owed_pages == outcome.sent.owed_pages);
    CHECK(outcome.owed.status.left_pages == 0);
    CHECK(outcome.owed.arrived_again <= outcome.owed.status.freed_pages);
    CHECK(outcome.drained_ns > outcome.released_ns);
    return outcome;
}

bool in_owed_phase(World& world) {
    return world.target().state == SMIG_STATE_OWING;
}

// Some pages have come, and more are missing: the phase is slow enough that something can be done to it.
bool amid_owed_phase(World& world) {
    const FakeMachine& target = world.target();
    return in_owed_phase(world) && target.missing_pages < target.owed_at_capture;
}

}  // namespace

TEST_CASE("hybrid: one pass, and what was written since is fetched or pushed, each page once") {
    const MoveOutcome outcome = check_moves(Mode::hybrid);
    CHECK(outcome.sent.passes == 1);
    CHECK(outcome.sent.stop_reason == SMIG_STOP_OWED);
    CHECK(outcome.owed.arrived[SMIG_OWED_PUSHED] > 0);
    CHECK(outcome.owed.source.speculation != 0);
    // Pages of the pass and of the owed phase: no page a third time.
    CHECK(outcome.owed.source.sent_before > 0);
    CHECK(outcome.owed.source.sent_before <= outcome.sent.owed_pages);
}

TEST_CASE("hybrid-ns: nothing is speculated") {
    const MoveOutcome outcome = check_moves(Mode::hybrid_ns);
    CHECK(outcome.owed.source.speculation == 0);
    CHECK(outcome.owed.arrived[SMIG_OWED_SPECULATED] == 0);
}

TEST_CASE("postcopy: no anonymous page travels before the switch") {
    const MoveOutcome outcome = check_moves(Mode::postcopy);
    CHECK(outcome.owed.source.sent_before == 0);
    CHECK(outcome.owed.source.order == SMIG_PUSH_SEQUENTIAL);
    CHECK(outcome.sent.owed_pages > 1500);
    CHECK(outcome.owed.arrived[SMIG_OWED_SPECULATED] == 0);
}

TEST_CASE("who has got the page that he waited for runs before more is read of what is pushed") {
    World world(in_mode(Mode::postcopy));
    world.target().install_pace_us = 2'000;
    world.start_source();
    const MoveOutcome outcome = world.clone_outcome();
    CHECK(outcome.verdict == Verdict::moved);
    CHECK(world.eventually([&] { return world.source().powered_off.load(); }));
    REQUIRE(world.target().waits > 0);
    CHECK(outcome.owed.rests > 0);
    check_drained(world, true);
}

TEST_CASE("postcopy-i: pushed outwards from the faults") {
    const MoveOutcome outcome = check_moves(Mode::postcopy_i);
    CHECK(outcome.owed.source.order == SMIG_PUSH_OUTWARD);
}

TEST_CASE("auto: a guest that writes everything anew is switched with pages owed") {
    Setup setup = in_mode(Mode::automatic);
    setup.transfer.passes.downtime_limit_ms = 0;
    World world(setup);
    world.source().restless_pages = 12'000;
    world.start_source();
    const MoveOutcome outcome = world.clone_outcome();
    CHECK(outcome.verdict == Verdict::moved);
    CHECK(world.eventually([&] { return world.source().powered_off.load(); }));
    CHECK(outcome.sent.passes == 2);
    CHECK(outcome.sent.stop_reason == SMIG_STOP_OWED);
    CHECK(outcome.sent.owed_pages > 0);
    check_drained(world, true);
}

TEST_CASE("auto: a quiet guest is moved without owing anything") {
    World world(in_mode(Mode::automatic));
    world.start_source();
    const MoveOutcome outcome = world.clone_outcome();
    CHECK(outcome.verdict == Verdict::moved);
    CHECK(outcome.sent.owed_pages == 0);
    CHECK(outcome.drained_ns == 0);
    CHECK(world.eventually([&] { return world.source().powered_off.load(); }));
    CHECK(differing_pages(world.source(), world.target()) == 0);
}

TEST_CASE("where nothing was left to owe a hybrid move ends with the switch") {
    World world(in_mode(Mode::hybrid));
    world.source().restless_pages = 0;
    // Whatever a pass could not read is owed: so many passes as it takes to read all are not made here.
    world.start_source();
    const MoveOutcome outcome = world.clone_outcome();
    CHECK(outcome.verdict == Verdict::moved);
    CHECK(world.eventually([&] { return world.source().powered_off.load(); }));
    check_drained(world, true);
}

TEST_CASE("the stop process dies while pages are owed: the supervisor serves them") {
    World world(in_mode(Mode::postcopy));
    world.target().install_pace_us = 20'000;
    world.start_source();
    CHECK(world.eventually([&] { return amid_owed_phase(world); }));
    world.kill_stop_process();
    CHECK(in_owed_phase(world));
    const MoveOutcome outcome = world.clone_outcome();
    CHECK(outcome.verdict == Verdict::moved);
    CHECK(outcome.owed.reconnections > 0);
    CHECK(world.eventually([&] { return world.source().powered_off.load(); }));
    check_drained(world, false);
}

TEST_CASE("the clone's process dies while pages are owed: another goes on, and the guest never stops") {
    World world(in_mode(Mode::postcopy));
    world.target().install_pace_us = 20'000;
    world.start_source();
    CHECK(world.eventually([&] { return amid_owed_phase(world); }));
    world.kill_clone_process();
    CHECK(in_owed_phase(world));
    world.adopt_clone();
    const MoveOutcome outcome = world.clone_outcome();
    CHECK(outcome.verdict == Verdict::moved);
    CHECK(world.eventually([&] { return world.source().powered_off.load(); }));
    check_drained(world, false);
}

TEST_CASE("a hybrid move that fails before the commit leaves nothing marked") {
    Setup setup = in_mode(Mode::hybrid);
    setup.source_holds = {"source-sending:60000"};
    World world(setup);
    world.start_source();
    CHECK(world.eventually([&] { return world.source().state == SMIG_STATE_CAPTURED; }));
    world.kill_stop_process();
    CHECK(world.verdict()["verdict"] == "rolled-back");
    CHECK(world.source().guest_runs);
    for (std::uint64_t pfn = 0; pfn < kFakeTop; ++pfn) CHECK_FALSE(world.source().owed[pfn]);
}

TEST_CASE(
    "the stop process dies between the commit and GO of a hybrid move: the supervisor gives, and serves") {
    Setup setup = in_mode(Mode::hybrid);
    setup.source_holds = {"source-given:60000"};
    World world(setup);
    world.source().restless_pages = 1500;
    world.start_source();
    CHECK(world.eventually([&] { return world.source().state == SMIG_STATE_GIVEN; }));
    world.kill_stop_process();
    CHECK(world.clone_outcome().verdict == Verdict::moved);
    CHECK(world.eventually([&] { return world.source().powered_off.load(); }));
    check_drained(world, true);
}
