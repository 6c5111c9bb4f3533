// SPDX-License-Identifier: Apache-2.0
// The report of a move: for a person, and as one JSON object for programs.
#pragma once

#include <cstdint>
#include <string>

#include "agent/report/outcome.hpp"
#include "agent/wire/codec.hpp"

namespace smig {

// What the agent knows besides the outcome.
struct MoveFacts {
    std::string mode;      // "precopy", ...
    bool explain = false;  // the text says why automatic did what it did
    std::string kernel;
    std::uint32_t vcpus = 0;
    std::uint64_t memory_mib = 0;
    WireId epoch{};
    std::uint64_t started_ns = 0;   // CLOCK_MONOTONIC, when `to` was called
    std::uint64_t finished_ns = 0;  // when the outcome was known
    std::string target;             // as the person wrote it
};

// One line, without a line end.
[[nodiscard]] std::string report_json(const MoveFacts& facts, const MoveOutcome& outcome);
// Some lines, each with its line end.
[[nodiscard]] std::string report_text(const MoveFacts& facts, const MoveOutcome& outcome);

[[nodiscard]] const char* verdict_name(Verdict verdict);

}  // namespace smig
