// SPDX-License-Identifier: Apache-2.0
#include "agent/peer/machine.hpp"

#include <doctest/doctest.h>

#include <algorithm>

using namespace smig;
using namespace smig::target_event;

namespace {

bool has(const TargetActions& actions, TargetDo what) {
    return std::ranges::count(actions, what) > 0;
}

TargetMachine in_state(smig_session_state state) {
    TargetMachine machine(TargetLimits{}, 0);
    const auto step = [&](const TargetEvent& event) { (void)machine.on(event, 0); };
    if (state == SMIG_TARGET_CHECKING) return machine;
    step(Hello{true});
    step(Described{});
    step(Checked{true, ""});
    step(ClockAsked{});
    step(LandAsked{});
    step(LandDone{});
    if (state == SMIG_TARGET_LANDED) return machine;
    step(ImagePart{});
    if (state == SMIG_TARGET_LOADING) return machine;
    step(ImageEnd{});
    step(ImageWhole{});
    if (state == SMIG_TARGET_READY) return machine;
    step(JumpAsked{});
    return machine;
}

constexpr smig_session_state kStates[] = {SMIG_TARGET_CHECKING, SMIG_TARGET_LANDED, SMIG_TARGET_LOADING,
                                          SMIG_TARGET_READY, SMIG_TARGET_JUMPING};

}  // namespace

TEST_CASE("a target passes every state in order") {
    for (const smig_session_state state : kStates) CHECK(in_state(state).state() == state);
}

TEST_CASE("whatever goes wrong, the device is closed and the session is over") {
    for (const smig_session_state state : kStates) {
        for (const TargetEvent& failure :
             std::vector<TargetEvent>{Lost{"x"}, PeerFailed{"x"}, Broken{SMIG_REASON_DEVICE, "x"}}) {
            TargetMachine machine = in_state(state);
            const TargetActions actions = machine.on(failure, 0);
            CHECK(has(actions, TargetDo::close_device));
            CHECK(machine.over());
            CHECK(machine.on(JumpAsked{}, 0).empty());
        }
    }
}

TEST_CASE("a frame that has no place in a state ends the session") {
    const std::vector<std::pair<TargetEvent, smig_session_state>> right = {
        {Hello{true}, SMIG_TARGET_CHECKING}, {ImagePart{}, SMIG_TARGET_LANDED},
        {ImagePart{}, SMIG_TARGET_LOADING},  {ImageEnd{}, SMIG_TARGET_LOADING},
        {JumpAsked{}, SMIG_TARGET_READY},
    };
    for (const smig_session_state state : kStates) {
        for (const TargetEvent& event :
             std::vector<TargetEvent>{Hello{true}, Described{}, ClockAsked{}, LandAsked{}, ImagePart{},
                                      ImageEnd{}, JumpAsked{}, LandDone{}, ImageWhole{}}) {
            if (std::ranges::any_of(right, [&](const auto& one) {
                    return one.first.index() == event.index() && one.second == state;
                }))
                continue;
            TargetMachine machine = in_state(state);
            const TargetActions actions = machine.on(event, 0);
            CHECK(machine.over());
            CHECK_FALSE(has(actions, TargetDo::jump));
            CHECK(has(actions, TargetDo::send_failed));
        }
    }
}

TEST_CASE("a source that does not fit hears why, and no memory is taken") {
    TargetMachine machine(TargetLimits{}, 0);
    (void)machine.on(Hello{true}, 0);
    (void)machine.on(Described{}, 0);
    const TargetActions actions = machine.on(Checked{false, "other kernel"}, 0);
    CHECK(has(actions, TargetDo::send_refuse));
    CHECK(machine.text() == "other kernel");
    CHECK(machine.over());
}

TEST_CASE("a source that wants to be trusted is refused") {
    TargetMachine machine(TargetLimits{}, 0);
    CHECK_FALSE(has(machine.on(Hello{false}, 0), TargetDo::send_welcome));
    CHECK(machine.over());
}

TEST_CASE("LAND needs an ACCEPT") {
    TargetMachine machine(TargetLimits{}, 0);
    (void)machine.on(Hello{true}, 0);
    CHECK_FALSE(has(machine.on(LandAsked{}, 0), TargetDo::land));
    CHECK(machine.over());
}

TEST_CASE("a silent source is given up in every state but the jump") {
    for (const smig_session_state state : kStates) {
        TargetMachine machine = in_state(state);
        if (state == SMIG_TARGET_JUMPING) {
            CHECK(machine.deadline_ms() == kNever);
            continue;
        }
        REQUIRE(machine.deadline_ms() < kNever);
        (void)machine.on(DeadlinePassed{}, machine.deadline_ms() - 1);
        CHECK_FALSE(machine.over());
        (void)machine.on(DeadlinePassed{}, machine.deadline_ms());
        CHECK(machine.over());
    }
}

TEST_CASE("pages push the deadline ahead") {
    TargetMachine machine = in_state(SMIG_TARGET_LOADING);
    const std::int64_t before = machine.deadline_ms();
    (void)machine.on(ImagePart{}, 1000);
    CHECK(machine.deadline_ms() == before + 1000);
}
