// SPDX-License-Identifier: Apache-2.0
#include "agent/peer/clone_machine.hpp"

#include <doctest/doctest.h>

#include <algorithm>

using namespace smig;
using namespace smig::clone_event;

namespace {

constexpr WireId kEpoch{1};
constexpr WireId kNonce{2};

bool has(const CloneActions& actions, CloneDo what) {
    return std::ranges::count(actions, what) > 0;
}

CloneMachine asking() {
    CloneMachine machine(kEpoch, kNonce, CloneLimits{});
    CHECK(has(machine.on(Woke{}, 0), CloneDo::connect));
    CHECK(has(machine.on(Connected{}, 0), CloneDo::send_alive));
    return machine;
}

CloneMachine released() {
    CloneMachine machine = asking();
    (void)machine.on(Go{kEpoch, kNonce}, 0);
    const CloneActions actions = machine.on(clone_event::Released{}, 0);
    CHECK(has(actions, CloneDo::announce));
    CHECK(has(actions, CloneDo::send_released));
    return machine;
}

}  // namespace

TEST_CASE("GO releases the guest") {
    CloneMachine machine = asking();
    CHECK(has(machine.on(Go{kEpoch, kNonce}, 0), CloneDo::release));
    CHECK(machine.state() == SMIG_CLONE_FENCED);
    (void)machine.on(clone_event::Released{}, 0);
    CHECK(machine.state() == SMIG_CLONE_RELEASED);
}

TEST_CASE("VOID resets the machine, and nothing else follows") {
    CloneMachine machine = asking();
    CHECK(has(machine.on(Void{kEpoch, kNonce}, 0), CloneDo::reset_machine));
    CHECK(machine.over());
    CHECK(machine.on(Go{kEpoch, kNonce}, 0).empty());
}

TEST_CASE("GO or VOID for somebody else is no answer") {
    for (const auto& [epoch, nonce] : {std::pair{WireId{9}, kNonce}, std::pair{kEpoch, WireId{9}}}) {
        for (const CloneEvent& event : std::vector<CloneEvent>{Go{epoch, nonce}, Void{epoch, nonce}}) {
            CloneMachine machine = asking();
            const CloneActions actions = machine.on(event, 0);
            CHECK_FALSE(has(actions, CloneDo::release));
            CHECK_FALSE(has(actions, CloneDo::reset_machine));
            CHECK(machine.state() == SMIG_CLONE_FENCED);
            CHECK_FALSE(machine.over());
        }
    }
}

TEST_CASE("without an answer the clone asks for ever and never runs the guest") {
    CloneMachine machine(kEpoch, kNonce, CloneLimits{});
    std::int64_t now = 0;
    int connects = 0;
    CloneActions actions = machine.on(Woke{}, now);
    for (int turn = 0; turn < 10'000; ++turn) {
        CHECK_FALSE(has(actions, CloneDo::release));
        if (has(actions, CloneDo::connect)) {
            ++connects;
            switch (turn % 3) {
                case 0:
                    actions = machine.on(ConnectFailed{}, now);
                    continue;
                case 1:
                    actions = machine.on(Connected{}, now);
                    continue;
                default:
                    (void)machine.on(Connected{}, now);
                    actions = machine.on(turn % 2 == 0 ? CloneEvent(Lost{true}) : CloneEvent(Wait{}), now);
                    continue;
            }
        }
        REQUIRE(machine.deadline_ms() < kNever);
        now = std::max(now, machine.deadline_ms());
        actions = machine.on(DeadlinePassed{}, now);
    }
    CHECK(connects > 1000);
    CHECK(machine.state() == SMIG_CLONE_FENCED);
}

TEST_CASE("after GO a refusal is not heard") {
    CloneMachine machine = asking();
    (void)machine.on(Go{kEpoch, kNonce}, 0);
    CHECK(machine.on(Void{kEpoch, kNonce}, 0).empty());
    CHECK(machine.on(Lost{}, 0).empty());
    CloneMachine running = released();
    CHECK_FALSE(has(running.on(Void{kEpoch, kNonce}, 0), CloneDo::reset_machine));
}

TEST_CASE("a release that fails is tried again until it succeeds") {
    CloneMachine machine = asking();
    (void)machine.on(Go{kEpoch, kNonce}, 0);
    for (int i = 0; i < 5; ++i) {
        CHECK_FALSE(has(machine.on(ReleaseFailed{"x"}, 0), CloneDo::release));
        CHECK(has(machine.on(DeadlinePassed{}, machine.deadline_ms()), CloneDo::release));
    }
    (void)machine.on(clone_event::Released{}, 0);
    CHECK(machine.state() == SMIG_CLONE_RELEASED);
}

TEST_CASE("the source's orderly end is its acknowledgement") {
    CloneMachine machine = released();
    CHECK(has(machine.on(Lost{true}, 0), CloneDo::finish));
    CHECK(machine.over());
}

TEST_CASE("a lost acknowledgement is asked for again, but not for ever") {
    CloneMachine machine = released();
    std::int64_t now = 0;
    int told = 0;
    CloneActions actions = machine.on(Lost{false}, now);
    while (!machine.over()) {
        if (has(actions, CloneDo::connect)) {
            CHECK(has(machine.on(Connected{}, now), CloneDo::send_alive));
            CHECK(has(machine.on(Go{kEpoch, kNonce}, now), CloneDo::send_released));
            ++told;
        }
        now = std::max(now, machine.deadline_ms());
        actions = machine.on(DeadlinePassed{}, now);
        REQUIRE(told <= CloneLimits{}.tell_attempts);
    }
    CHECK(told >= 1);
    CHECK(machine.state() == SMIG_CLONE_RELEASED);
}

TEST_CASE("a guest with owed pages runs at once, and is reported when the last one is here") {
    CloneMachine machine = asking();
    (void)machine.on(Go{kEpoch, kNonce}, 0);
    const CloneActions actions = machine.on(clone_event::Released{true}, 0);
    CHECK(machine.state() == SMIG_CLONE_OWING);
    CHECK(actions == CloneActions{CloneDo::send_released, CloneDo::fetch_owed});
    for (const CloneEvent& event :
         std::vector<CloneEvent>{Lost{true}, Lost{false}, DeadlinePassed{}, Void{kEpoch, kNonce}, Wait{}}) {
        CHECK(machine.on(event, 1'000'000).empty());
        CHECK(machine.state() == SMIG_CLONE_OWING);
    }
    const CloneActions done = machine.on(Drained{}, 0);
    CHECK(machine.state() == SMIG_CLONE_RELEASED);
    CHECK(has(done, CloneDo::report));
    CHECK(has(done, CloneDo::connect));
    CHECK(has(machine.on(Connected{}, 0), CloneDo::send_alive));
    const CloneActions told = machine.on(Go{kEpoch, kNonce}, 0);
    CHECK(has(told, CloneDo::send_drained));
    CHECK_FALSE(has(told, CloneDo::send_released));
    CHECK(has(machine.on(Lost{true}, 0), CloneDo::finish));
    CHECK(machine.over());
}

TEST_CASE("a release that fails is tried again, also without the connection that brought GO") {
    CloneMachine machine = asking();
    (void)machine.on(Go{kEpoch, kNonce}, 0);
    (void)machine.on(ReleaseFailed{"x"}, 0);
    // or what is lost would be read again and again
    CHECK(machine.on(Lost{false}, 0) == CloneActions{CloneDo::disconnect});
    CHECK(machine.on(DeadlinePassed{}, machine.deadline_ms()) == CloneActions{CloneDo::release});
}

TEST_CASE("a supervisor that takes over a guest which was released tells the agent and the source") {
    CloneMachine machine = CloneMachine::take_up(CloneAt::released, kEpoch, kNonce, CloneLimits{});
    CHECK(machine.on(Woke{}, 0) == CloneActions{CloneDo::report, CloneDo::connect});
    CHECK(machine.on(Connected{}, 0) == CloneActions{CloneDo::send_alive});
    CHECK(machine.on(Go{kEpoch, kNonce}, 0) == CloneActions{CloneDo::send_drained});
    CHECK(has(machine.on(Lost{true}, 0), CloneDo::finish));
    CHECK(machine.over());
}

TEST_CASE("a supervisor that takes the clone over while pages are owed asks nobody for GO") {
    CloneMachine machine = CloneMachine::take_up(CloneAt::owing, kEpoch, kNonce, CloneLimits{});
    CHECK(machine.state() == SMIG_CLONE_OWING);
    CHECK(machine.on(Woke{}, 0) == CloneActions{CloneDo::fetch_owed});
    CHECK(machine.on(Void{kEpoch, kNonce}, 0).empty());
    CHECK(has(machine.on(Drained{}, 0), CloneDo::report));
}

TEST_CASE("DRAINED that nobody hears is told again, but not for ever") {
    CloneMachine machine = CloneMachine::take_up(CloneAt::owing, kEpoch, kNonce, CloneLimits{});
    (void)machine.on(Woke{}, 0);
    std::int64_t now = 0;
    int attempts = 0;
    CloneActions actions = machine.on(Drained{}, now);
    while (!machine.over()) {
        if (has(actions, CloneDo::connect)) {
            ++attempts;
            actions = machine.on(ConnectFailed{}, now);
            continue;
        }
        REQUIRE(machine.deadline_ms() < kNever);
        now = std::max(now, machine.deadline_ms());
        actions = machine.on(DeadlinePassed{}, now);
    }
    CHECK(attempts == CloneLimits{}.tell_attempts);
}
