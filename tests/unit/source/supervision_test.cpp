// SPDX-License-Identifier: Apache-2.0
#include "agent/source/supervision.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "common/uapi/selfmigrate.h"

using namespace smig;

namespace {

Observation dead_in(std::uint32_t device_state) {
    Observation seen;
    seen.stop_process_alive = false;
    seen.device_state = device_state;
    return seen;
}

Observation hanging_in(std::uint32_t device_state) {
    Observation seen;
    seen.overdue = true;
    seen.device_state = device_state;
    return seen;
}

}  // namespace

TEST_CASE("a stop process that speaks is left alone") {
    for (std::uint32_t state = 0; state <= SMIG_STATE_OWING; ++state) {
        Observation seen;
        seen.device_state = state;
        CHECK(supervise(seen) == Supervision::watch);
    }
}

TEST_CASE("a stop process that hangs is killed, so that the module undoes") {
    CHECK(supervise(hanging_in(SMIG_STATE_SOURCE)) == Supervision::kill);
    CHECK(supervise(hanging_in(SMIG_STATE_CAPTURED)) == Supervision::kill);
    CHECK(supervise(hanging_in(SMIG_STATE_GIVEN)) == Supervision::kill);
    CHECK(supervise(hanging_in(0)) == Supervision::watch);
}

TEST_CASE("a clone just woken is not killed for the time it did not see") {
    Observation seen = hanging_in(SMIG_STATE_CLONE);
    CHECK(supervise(seen) == Supervision::watch);
    seen.clone_seen_ms = 60'000;
    CHECK(supervise(seen) == Supervision::kill);
}

TEST_CASE("after a death the module says what to do") {
    CHECK(supervise(dead_in(SMIG_STATE_CAPTURED)) == Supervision::watch);  // it is still undoing
    CHECK(supervise(dead_in(0)) == Supervision::watch);
    CHECK(supervise(dead_in(SMIG_STATE_GIVEN)) == Supervision::give);
    CHECK(supervise(dead_in(SMIG_STATE_CLONE)) == Supervision::be_clone);
    CHECK(supervise(dead_in(SMIG_STATE_OWING)) == Supervision::be_clone);
    CHECK(supervise(dead_in(SMIG_STATE_IDLE)) == Supervision::report_leave);
}

TEST_CASE("a death after JUMP leaves somebody to tell the clone") {
    Observation seen = dead_in(SMIG_STATE_IDLE);
    seen.jump_sent = true;
    CHECK(supervise(seen) == Supervision::report_refuse);
    seen.reported = true;
    CHECK(supervise(seen) == Supervision::refuse);
    seen.stop_process_alive = true;
    seen.overdue = true;
    CHECK(supervise(seen) == Supervision::watch);
}

TEST_CASE("a guest that was released on the clone has moved, whether or not its stop process could say so") {
    Observation seen = dead_in(SMIG_STATE_IDLE);
    seen.woke_as_clone = true;
    seen.jump_sent = true;  // as it may stand in the image
    CHECK(supervise(seen) == Supervision::tell_moved);
    seen.reported = true;
    CHECK(supervise(seen) == Supervision::leave);
}

TEST_CASE("a move that is over has no part in the next one, whatever the module says then") {
    for (std::uint32_t state = 0; state <= SMIG_STATE_OWING; ++state) {
        for (Observation seen : std::vector{dead_in(state), hanging_in(state)}) {
            seen.reported = true;
            seen.clone_seen_ms = 60'000;
            CHECK(supervise(seen) == Supervision::leave);
        }
    }
}
