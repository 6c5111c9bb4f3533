// SPDX-License-Identifier: Apache-2.0
// The owed phase's part of the report.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "agent/report/outcome.hpp"

namespace smig {

// Adds owed_pages and all that is known of how they came; zeros where nothing was owed.
void add_owed(nlohmann::ordered_json& out, const MoveOutcome& outcome);
// Some lines; empty where nothing was owed.
[[nodiscard]] std::string owed_text(const MoveOutcome& outcome);

// The wait below which this share of all waits lay: the upper end of its slot, at most the longest wait (ms).
// 0 without a wait.
[[nodiscard]] double wait_percentile_ms(const smig_owed_status& status, double share);

}  // namespace smig
