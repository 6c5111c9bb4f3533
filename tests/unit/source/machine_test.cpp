// SPDX-License-Identifier: Apache-2.0
#include "agent/source/machine.hpp"

#include <doctest/doctest.h>

#include <algorithm>

using namespace smig;
using namespace smig::source_event;

namespace {

constexpr WireId kEpoch{1};
constexpr WireId kNonce{2};
constexpr smig_wire_image_end kSent{10, 20, 30};

bool has(const SourceActions& actions, SourceDo what) {
    return std::ranges::any_of(actions, [&](const SourceAction& action) { return action.what == what; });
}

// A machine that has come as far as `state` the ordinary way, at time 0.
SourceMachine in_state(smig_session_state state, bool owes = false) {
    SourceMachine machine(kEpoch, SourceLimits{});
    const auto step = [&](const SourceEvent& event) { (void)machine.on(event, 0); };
    step(Start{});
    if (state == SMIG_SOURCE_CHECKING) return machine;
    step(Welcomed{kNonce});
    step(Accepted{});
    step(ClocksSampled{});
    if (state == SMIG_SOURCE_LANDING) return machine;
    step(Landed{});
    if (state == SMIG_SOURCE_PASSING) return machine;
    step(Prepared{true});
    step(PassDone{true});
    step(PassDone{false});
    if (state == SMIG_SOURCE_STOPPING) return machine;
    step(Stopped{owes});
    if (state == SMIG_SOURCE_SENDING) return machine;
    step(ImageSent{kSent});
    if (state == SMIG_SOURCE_AWAITING_READY) return machine;
    step(Ready{{10, 20, 30}});
    if (state == SMIG_SOURCE_AWAITING_ALIVE) return machine;
    step(Alive{1, kEpoch, kNonce});
    step(Committed{});
    if (state == SMIG_SOURCE_GIVEN) return machine;
    step(source_event::Released{1, kEpoch, kNonce});
    if (!owes || state == SMIG_SOURCE_OWING) return machine;
    step(Drained{1, kEpoch, kNonce});
    return machine;
}

constexpr smig_session_state kBeforeCommit[] = {
    SMIG_SOURCE_CHECKING, SMIG_SOURCE_LANDING,        SMIG_SOURCE_PASSING,       SMIG_SOURCE_STOPPING,
    SMIG_SOURCE_SENDING,  SMIG_SOURCE_AWAITING_READY, SMIG_SOURCE_AWAITING_ALIVE};
constexpr smig_session_state kStopped[] = {SMIG_SOURCE_SENDING, SMIG_SOURCE_AWAITING_READY,
                                           SMIG_SOURCE_AWAITING_ALIVE};

// Every event that can fail a move, and every one that comes at a wrong moment in most states.
std::vector<SourceEvent> failures() {
    return {PeerFailed{"x"}, Broken{SMIG_REASON_DEVICE, "x"}, Lost{true, "x"}, Welcomed{}, Accepted{},
            Refused{"x"}};
}

}  // namespace

TEST_CASE("a move that goes well passes every state in order") {
    for (const smig_session_state state : kBeforeCommit) CHECK(in_state(state).state() == state);
    CHECK(in_state(SMIG_SOURCE_GIVEN).state() == SMIG_SOURCE_GIVEN);
    CHECK(in_state(SMIG_SOURCE_FINISHED).state() == SMIG_SOURCE_FINISHED);
}

TEST_CASE("before commit every failure rolls back, and a stopped guest is thawed") {
    for (const smig_session_state state : kBeforeCommit) {
        for (const SourceEvent& failure : failures()) {
            SourceMachine machine = in_state(state);
            // Not a failure but the next step here.
            if (state == SMIG_SOURCE_CHECKING && std::holds_alternative<Welcomed>(failure)) continue;
            const SourceActions actions = machine.on(failure, 0);
            CHECK(machine.state() == SMIG_SOURCE_ROLLED_BACK);
            CHECK(has(actions, SourceDo::report_back));
            CHECK(has(actions, SourceDo::tell_peer));
            CHECK(has(actions, SourceDo::undo_stop) == (std::ranges::count(kStopped, state) > 0));
            CHECK_FALSE(has(actions, SourceDo::answer_go));
        }
    }
}

TEST_CASE("every wait has an end before commit") {
    for (const smig_session_state state : kBeforeCommit) {
        SourceMachine machine = in_state(state);
        if (state == SMIG_SOURCE_STOPPING || state == SMIG_SOURCE_SENDING) continue;  // the edge's business
        REQUIRE(machine.deadline_ms() < kNever);
        CHECK(machine.on(DeadlinePassed{}, machine.deadline_ms() - 1).empty());
        CHECK(machine.state() == state);
        CHECK_FALSE(machine.on(DeadlinePassed{}, machine.deadline_ms()).empty());
        CHECK(machine.state() == SMIG_SOURCE_ROLLED_BACK);
    }
}

TEST_CASE("after commit nothing leads back") {
    for (const smig_session_state state : {SMIG_SOURCE_GIVEN, SMIG_SOURCE_FINISHED}) {
        SourceMachine machine = in_state(state);
        std::vector<SourceEvent> events = failures();
        events.insert(events.end(), {DeadlinePassed{}, CancelAsked{}, Stopped{}, Landed{}, Ready{},
                                     ImageSent{}, ClocksSampled{}, Prepared{}, PassDone{}});
        for (const SourceEvent& event : events) {
            CHECK(machine.on(event, kNever).empty());
            CHECK(machine.state() == state);
        }
        CHECK(machine.deadline_ms() == kNever);
    }
}

TEST_CASE("GO is said only after the commit succeeded") {
    SourceMachine machine = in_state(SMIG_SOURCE_AWAITING_ALIVE);
    const SourceActions actions = machine.on(Alive{7, kEpoch, kNonce}, 0);
    REQUIRE(actions.size() == 1);
    CHECK(actions[0].what == SourceDo::commit);
    CHECK(machine.state() == SMIG_SOURCE_AWAITING_ALIVE);
    const SourceActions then = machine.on(Committed{}, 0);
    REQUIRE(then.size() == 1);
    CHECK(then[0].what == SourceDo::answer_go);
    CHECK(then[0].caller == 7);
    CHECK(machine.state() == SMIG_SOURCE_GIVEN);
}

TEST_CASE("a commit that fails rolls back and voids the clone") {
    SourceMachine machine = in_state(SMIG_SOURCE_AWAITING_ALIVE);
    (void)machine.on(Alive{7, kEpoch, kNonce}, 0);
    const SourceActions actions = machine.on(CommitFailed{"x"}, 0);
    CHECK(has(actions, SourceDo::answer_void));
    CHECK(has(actions, SourceDo::undo_stop));
    CHECK(machine.state() == SMIG_SOURCE_ROLLED_BACK);
}

TEST_CASE("while the commit is under way a second caller waits") {
    SourceMachine machine = in_state(SMIG_SOURCE_AWAITING_ALIVE);
    (void)machine.on(Alive{1, kEpoch, kNonce}, 0);
    CHECK(has(machine.on(Alive{2, kEpoch, kNonce}, 0), SourceDo::answer_wait));
}

TEST_CASE("who names another epoch or nonce hears VOID in every state and changes none") {
    for (const smig_session_state state : kBeforeCommit) {
        SourceMachine machine = in_state(state);
        for (const auto& [epoch, nonce] : {std::pair{WireId{9}, kNonce}, std::pair{kEpoch, WireId{9}}}) {
            const SourceActions actions = machine.on(Alive{1, epoch, nonce}, 0);
            REQUIRE(actions.size() == 1);
            CHECK(actions[0].what == SourceDo::answer_void);
            CHECK(machine.state() == state);
        }
    }
    SourceMachine given = in_state(SMIG_SOURCE_GIVEN);
    CHECK(has(given.on(Alive{1, kEpoch, WireId{9}}, 0), SourceDo::answer_void));
}

TEST_CASE("a clone that asks again hears GO again, and VOID after a rollback") {
    SourceMachine given = in_state(SMIG_SOURCE_GIVEN);
    for (int i = 0; i < 3; ++i) CHECK(has(given.on(Alive{i, kEpoch, kNonce}, 0), SourceDo::answer_go));
    SourceMachine finished = in_state(SMIG_SOURCE_FINISHED);
    CHECK(has(finished.on(Alive{1, kEpoch, kNonce}, 0), SourceDo::answer_go));
    SourceMachine back = in_state(SMIG_SOURCE_AWAITING_ALIVE);
    (void)back.on(DeadlinePassed{}, back.deadline_ms());
    for (int i = 0; i < 3; ++i) CHECK(has(back.on(Alive{i, kEpoch, kNonce}, 0), SourceDo::answer_void));
}

TEST_CASE("after JUMP a reset connection says nothing, an orderly end says that nobody jumped") {
    SourceMachine machine = in_state(SMIG_SOURCE_AWAITING_ALIVE);
    CHECK(machine.on(Lost{false, "reset"}, 0).empty());
    CHECK(machine.state() == SMIG_SOURCE_AWAITING_ALIVE);
    CHECK_FALSE(machine.on(Lost{true, "end"}, 0).empty());
    CHECK(machine.state() == SMIG_SOURCE_ROLLED_BACK);
}

TEST_CASE("an image that arrived differently is not jumped into") {
    for (const smig_wire_ready ready :
         {smig_wire_ready{11, 20, 30}, smig_wire_ready{10, 21, 30}, smig_wire_ready{10, 20, 31}}) {
        SourceMachine machine = in_state(SMIG_SOURCE_AWAITING_READY);
        const SourceActions actions = machine.on(Ready{ready}, 0);
        CHECK_FALSE(has(actions, SourceDo::send_jump));
        CHECK(machine.reason() == SMIG_REASON_INTEGRITY);
    }
}

TEST_CASE("passes follow each other until one is the last, and stop-copy has none") {
    SourceMachine machine = in_state(SMIG_SOURCE_PASSING);
    for (const SourceEvent& event :
         std::vector<SourceEvent>{Prepared{true}, PassDone{true}, PassDone{true}}) {
        const SourceActions actions = machine.on(event, 0);
        REQUIRE(actions.size() == 1);
        CHECK(actions[0].what == SourceDo::pass);
        CHECK(machine.state() == SMIG_SOURCE_PASSING);
    }
    CHECK(has(machine.on(PassDone{false}, 0), SourceDo::stop));
    CHECK(machine.state() == SMIG_SOURCE_STOPPING);
    SourceMachine plain = in_state(SMIG_SOURCE_PASSING);
    CHECK(has(plain.on(Prepared{false}, 0), SourceDo::stop));
}

TEST_CASE("a caller in a pass waits, as before it") {
    SourceMachine machine = in_state(SMIG_SOURCE_PASSING);
    CHECK(has(machine.on(Alive{1, kEpoch, kNonce}, 0), SourceDo::answer_wait));
    CHECK(machine.state() == SMIG_SOURCE_PASSING);
}

TEST_CASE("each pass has its own deadline") {
    SourceMachine machine = in_state(SMIG_SOURCE_PASSING);
    const std::int64_t before = machine.deadline_ms();
    (void)machine.on(Prepared{true}, 1000);
    CHECK(machine.deadline_ms() == before + 1000);
}

TEST_CASE("a person can cancel until the stop begins") {
    for (const smig_session_state state : kBeforeCommit) {
        SourceMachine machine = in_state(state);
        (void)machine.on(CancelAsked{}, 0);
        const bool early =
            state == SMIG_SOURCE_CHECKING || state == SMIG_SOURCE_LANDING || state == SMIG_SOURCE_PASSING;
        CHECK((machine.state() == SMIG_SOURCE_ROLLED_BACK) == early);
    }
}

TEST_CASE("a stop that succeeds after the move was given up is undone") {
    SourceMachine machine = in_state(SMIG_SOURCE_STOPPING);
    CHECK_FALSE(has(machine.on(Lost{false, "x"}, 0), SourceDo::undo_stop));
    CHECK(has(machine.on(Stopped{}, 0), SourceDo::undo_stop));
    CHECK(machine.state() == SMIG_SOURCE_ROLLED_BACK);
}

TEST_CASE("RELEASED retires the source once, and only in GIVEN") {
    SourceMachine machine = in_state(SMIG_SOURCE_GIVEN);
    CHECK(machine.on(source_event::Released{1, kEpoch, WireId{9}}, 0).empty());
    CHECK(has(machine.on(source_event::Released{1, kEpoch, kNonce}, 0), SourceDo::retire));
    CHECK_FALSE(has(machine.on(source_event::Released{2, kEpoch, kNonce}, 0), SourceDo::retire));
    for (const smig_session_state state : kBeforeCommit) {
        SourceMachine early = in_state(state);
        CHECK(early.on(source_event::Released{1, kEpoch, kNonce}, 0).empty());
        CHECK(early.state() == state);
    }
}

TEST_CASE("a supervisor goes on where the stop process died") {
    SourceMachine given = SourceMachine::adopt(SMIG_SOURCE_GIVEN, kEpoch, kNonce);
    CHECK(has(given.on(Alive{1, kEpoch, kNonce}, 0), SourceDo::answer_go));
    SourceMachine back = SourceMachine::adopt(SMIG_SOURCE_ROLLED_BACK, kEpoch, kNonce);
    CHECK(has(back.on(Alive{1, kEpoch, kNonce}, 0), SourceDo::answer_void));
}

TEST_CASE("while pages are owed RELEASED does not retire the source, DRAINED does, once") {
    SourceMachine machine = in_state(SMIG_SOURCE_OWING, true);
    CHECK(machine.state() == SMIG_SOURCE_OWING);
    CHECK(has(machine.on(source_event::Released{2, kEpoch, kNonce}, 0), SourceDo::end_caller));
    CHECK(machine.state() == SMIG_SOURCE_OWING);
    CHECK(has(machine.on(Alive{3, kEpoch, kNonce}, 0), SourceDo::answer_go));
    CHECK(machine.on(Drained{4, kEpoch, WireId{9}}, 0).empty());
    const SourceActions actions = machine.on(Drained{4, kEpoch, kNonce}, 0);
    CHECK(has(actions, SourceDo::end_caller));
    CHECK(has(actions, SourceDo::retire));
    CHECK(machine.state() == SMIG_SOURCE_FINISHED);
    const SourceActions again = machine.on(Drained{5, kEpoch, kNonce}, 0);
    CHECK(has(again, SourceDo::end_caller));
    CHECK_FALSE(has(again, SourceDo::retire));
}

TEST_CASE("a clone that calls for owed pages is as good as one that has released") {
    for (const smig_session_state state : {SMIG_SOURCE_GIVEN, SMIG_SOURCE_OWING}) {
        SourceMachine machine = in_state(state, true);
        const SourceActions actions = machine.on(OwedCalled{7, kEpoch, kNonce, SMIG_OWED_PUSH, true}, 0);
        REQUIRE(actions.size() == 1);
        CHECK(actions[0].what == SourceDo::serve_owed);
        CHECK(actions[0].caller == 7);
        CHECK(actions[0].role == SMIG_OWED_PUSH);
        CHECK(actions[0].afresh);
        CHECK(machine.state() == SMIG_SOURCE_OWING);
    }
    CHECK(has(in_state(SMIG_SOURCE_GIVEN, true).on(Drained{1, kEpoch, kNonce}, 0), SourceDo::retire));
}

TEST_CASE("nobody is served owed pages before commit, after a rollback, or by another name") {
    for (const smig_session_state state : kBeforeCommit) {
        if (state == SMIG_SOURCE_CHECKING) continue;  // no control port yet, and no nonce
        SourceMachine machine = in_state(state, true);
        CHECK(has(machine.on(OwedCalled{1, kEpoch, kNonce, SMIG_OWED_DEMAND, false}, 0),
                  SourceDo::answer_wait));
        CHECK(machine.on(Drained{1, kEpoch, kNonce}, 0).empty());
        CHECK(machine.state() == state);
    }
    SourceMachine back = in_state(SMIG_SOURCE_AWAITING_ALIVE, true);
    (void)back.on(DeadlinePassed{}, back.deadline_ms());
    CHECK(has(back.on(OwedCalled{1, kEpoch, kNonce, SMIG_OWED_DEMAND, false}, 0), SourceDo::answer_void));
    SourceMachine owing = in_state(SMIG_SOURCE_OWING, true);
    for (const auto& [epoch, nonce] : {std::pair{WireId{9}, kNonce}, std::pair{kEpoch, WireId{9}}})
        CHECK(has(owing.on(OwedCalled{1, epoch, nonce, SMIG_OWED_DEMAND, false}, 0), SourceDo::answer_void));
    CHECK(owing.state() == SMIG_SOURCE_OWING);
}

TEST_CASE("where nothing is owed a call for pages means nothing, and DRAINED is as good as RELEASED") {
    SourceMachine machine = in_state(SMIG_SOURCE_GIVEN);
    CHECK(has(machine.on(OwedCalled{1, kEpoch, kNonce, SMIG_OWED_DEMAND, false}, 0), SourceDo::end_caller));
    CHECK(machine.state() == SMIG_SOURCE_GIVEN);
    const SourceActions actions = machine.on(Drained{1, kEpoch, kNonce}, 0);
    CHECK(has(actions, SourceDo::end_caller));
    CHECK(has(actions, SourceDo::retire));
}

TEST_CASE("in OWING nothing but DRAINED changes anything, for ever") {
    SourceMachine machine = in_state(SMIG_SOURCE_OWING, true);
    std::vector<SourceEvent> events = failures();
    events.insert(events.end(), {DeadlinePassed{}, CancelAsked{}, Stopped{}, Landed{}, Ready{}, ImageSent{},
                                 ClocksSampled{}, Prepared{}, PassDone{}});
    for (const SourceEvent& event : events) {
        CHECK(machine.on(event, kNever).empty());
        CHECK(machine.state() == SMIG_SOURCE_OWING);
    }
    CHECK(machine.deadline_ms() == kNever);
}

TEST_CASE("a supervisor that takes over while pages are owed serves them") {
    SourceMachine machine = SourceMachine::adopt(SMIG_SOURCE_GIVEN, kEpoch, kNonce, true);
    CHECK(has(machine.on(OwedCalled{1, kEpoch, kNonce, SMIG_OWED_DEMAND, false}, 0), SourceDo::serve_owed));
    CHECK(has(machine.on(Drained{1, kEpoch, kNonce}, 0), SourceDo::retire));
}
