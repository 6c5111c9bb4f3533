// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/ownership.hpp"

#include <doctest/doctest.h>

#include <string>

#include "agent/policy/hold.hpp"

using namespace smig;

TEST_CASE("the source owns the guest in every state before GIVEN, and after a rollback") {
    for (int state = SMIG_SOURCE_CHECKING; state <= SMIG_SOURCE_AWAITING_ALIVE; ++state)
        CHECK(may_run_guest(static_cast<smig_session_state>(state)));
    CHECK(may_run_guest(SMIG_SOURCE_ROLLED_BACK));
    CHECK_FALSE(may_run_guest(SMIG_SOURCE_GIVEN));
    CHECK_FALSE(may_run_guest(SMIG_SOURCE_OWING));
    CHECK_FALSE(may_run_guest(SMIG_SOURCE_FINISHED));
}

TEST_CASE("the target never runs the guest, the clone only when released") {
    for (int state = SMIG_TARGET_LISTENING; state <= SMIG_TARGET_GONE_BACK; ++state)
        CHECK_FALSE(may_run_guest(static_cast<smig_session_state>(state)));
    CHECK_FALSE(may_run_guest(SMIG_CLONE_FENCED));
    CHECK(may_run_guest(SMIG_CLONE_OWING));
    CHECK(may_run_guest(SMIG_CLONE_RELEASED));
    CHECK_FALSE(may_run_guest(SMIG_CLONE_REFUSED));
}

TEST_CASE("every state has a name that leads back to it") {
    int states = 0;
    for (int number = 0; number < 128; ++number) {
        const auto state = static_cast<smig_session_state>(number);
        if (std::string(state_name(state)) == "?") continue;
        ++states;
        CHECK(state_named(state_name(state)) == state);
    }
    CHECK(states == 22);
    CHECK_FALSE(state_named("source-asleep").has_value());
}

TEST_CASE("a hold names a phase and a time") {
    const auto hold = parse_hold("source-sending:1500");
    REQUIRE(hold.ok());
    const Holds holds({hold.value(), hold.value()});
    CHECK(holds.ms_in(SMIG_SOURCE_SENDING) == 3000);
    CHECK(holds.ms_in(SMIG_SOURCE_GIVEN) == 0);
    for (const char* bad : {"", "source-sending", "source-sending:", "source-sending:x", "source-sending:-1",
                            "nowhere:1", "source-sending:1 ", "source-sending:99999999999999999999"})
        CHECK_FALSE(parse_hold(bad).ok());
}
