// SPDX-License-Identifier: Apache-2.0
#include "agent/report/owed_report.hpp"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

using namespace smig;

namespace {

MoveOutcome some_outcome() {
    MoveOutcome outcome;
    outcome.sent.owed_pages = 1000;
    outcome.sent.owe_us = 2500;
    outcome.sent.hot_pages = 77;
    outcome.sent.repeated_pages = 5;
    outcome.released_ns = 1'000'000'000;
    outcome.drained_ns = 1'750'000'000;
    OwedTally& tally = outcome.owed;
    tally.source = {1000, 400, 250, 1u << SMIG_SPECULATE_ANON_SINGLE, SMIG_PUSH_OUTWARD};
    tally.arrived[SMIG_OWED_PUSHED] = 700;
    smig_owed_status& status = tally.status;
    status.owed_pages = 1000;
    status.demand_faults = 100;
    status.demand_pages = 80;
    status.speculated_pages = 200;
    status.speculated_used = 150;
    status.pushed_pages = 690;
    status.pushed_used = 10;
    status.freed_pages = 30;
    status.wait_ns = 50'000'000;
    status.max_wait_ns = 3'500'000;
    status.wait_by_log2_us[9] = 60;   // up to 512 us
    status.wait_by_log2_us[10] = 39;  // up to 1024 us
    status.wait_by_log2_us[12] = 1;   // up to 4096 us
    status.announce_ns = 80ull * 20'000;
    status.fetch_ns = 80ull * 400'000;
    status.install_ns = 80ull * 10'000;
    status.wake_ns = 100ull * 30'000;
    return outcome;
}

}  // namespace

TEST_CASE("the report tells what was owed, how it came, and how long faults waited") {
    nlohmann::ordered_json out;
    add_owed(out, some_outcome());
    CHECK(out["owed_pages"] == 1000);
    CHECK(out["owe_ms"] == 2.5);
    CHECK(out["hot_pages"] == 77);
    CHECK(out["pages_sent_twice"] == 405);
    CHECK(out["demand_fetches"] == 100);
    CHECK(out["touched_owed_pages"] == 240);
    CHECK(out["speculated"] == 200);
    CHECK(out["speculated_used"] == 150);
    CHECK(out["pushed"] == 690);
    CHECK(out["speculation"] == "anon-single");
    CHECK(out["push_order"] == "outward");
    CHECK(out["owed_phase_ms"] == 750.0);
    CHECK(out["fault_wait_ms"]["mean"] == 0.5);
    CHECK(out["fault_phases_ms"]["announce"] == 0.02);
    CHECK(out["fault_phases_ms"]["fetch"] == 0.4);
    CHECK(out["fault_phases_ms"]["install"] == 0.01);
    CHECK(out["fault_phases_ms"]["wake"] == 0.03);
    const std::string text = owed_text(some_outcome());
    CHECK(text.find("100 faults waited for 80 pages") != std::string::npos);
}

TEST_CASE("percentiles of waits are the upper ends of their slots, and no more than the longest wait") {
    const smig_owed_status status = some_outcome().owed.status;
    CHECK(wait_percentile_ms(status, 0.5) == 0.512);
    CHECK(wait_percentile_ms(status, 0.6) == 0.512);
    CHECK(wait_percentile_ms(status, 0.61) == 1.024);
    CHECK(wait_percentile_ms(status, 0.99) == 1.024);
    CHECK(wait_percentile_ms(status, 1.0) == 3.5);
    CHECK(wait_percentile_ms(smig_owed_status{}, 0.5) == 0);
}

TEST_CASE("where nothing was owed the report says so in zeros, and the text nothing") {
    nlohmann::ordered_json out;
    add_owed(out, MoveOutcome{});
    CHECK(out["owed_pages"] == 0);
    CHECK(out["demand_fetches"] == 0);
    CHECK(out["owed_phase_ms"] == 0.0);
    CHECK(out["speculation"] == "none");
    CHECK(owed_text(MoveOutcome{}).empty());
}
