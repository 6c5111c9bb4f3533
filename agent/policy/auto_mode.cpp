// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/auto_mode.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "agent/page/pfn.hpp"

namespace smig {

namespace {

constexpr double kConverges = 0.5;  // a pass that leaves at most this share of the one before
constexpr double kMorePasses = 3;   // that may be needed to come below the limit
constexpr double kMib = 1 << 20;

double mib(std::uint64_t pages) {
    return static_cast<double>(pages * kPageBytes) / kMib;
}

}  // namespace

AutoDecision AutoPolicy::before_pass(const AutoSeen& seen) const {
    const double seconds = static_cast<double>(seen.exposed_ns) / 1e9;
    const double send_ms = static_cast<double>(seen.pages) * seen.page_ns / 1e6;
    const double limit_ms = static_cast<double>(limits_.downtime_limit_ms);
    const double left = seen.previous_pages == 0
                            ? 1
                            : static_cast<double>(seen.pages) / static_cast<double>(seen.previous_pages);
    // Written evenly, what this pass reads will be read half its time before the next, in the mean.
    const double foreseen = seconds > 0 ? send_ms / 2 / (seconds * 1e3) : 0;
    const double kept = std::max(left, foreseen);
    const std::string leaves =
        foreseen > left ? fmt::format("this pass would leave {:.0f} % of what it sends", foreseen * 100)
                        : fmt::format("the last pass left {:.0f} % of the one before", left * 100);
    const double run = seen.runs == 0 ? 0 : static_cast<double>(seen.pages) / static_cast<double>(seen.runs);
    const std::string measured = fmt::format(
        "{:.1f} MiB were written within {:.1f} s of being sent ({:.1f} MiB/s, {:.1f} frames side by side); "
        "the link takes "
        "{:.1f} "
        "MiB/s, round trip {:.1f} ms",
        mib(seen.changed_pages), seconds, seconds > 0 ? mib(seen.changed_pages) / seconds : 0, run,
        seen.bytes_per_s / kMib, static_cast<double>(seen.rtt_ns) / 1e6);
    if (send_ms <= limit_ms)
        return {false, fmt::format("{}: pass {} takes {:.0f} ms, no page need be owed", measured, seen.number,
                                   send_ms)};
    const double more =
        kept <= 0 || kept >= 1 ? kMorePasses + 1 : std::log(limit_ms / send_ms) / std::log(kept);
    if (kept <= kConverges && more <= kMorePasses && seen.number < limits_.max_passes)
        return {false, fmt::format("{}: {}, {:.0f} more will do", measured, leaves, std::ceil(more))};
    return {true, fmt::format("{}: sending it takes {:.0f} ms, the limit is {:.0f}, and {}: switched, "
                              "anonymous pages stay owed",
                              measured, send_ms, limit_ms, leaves)};
}

AutoDecision AutoPolicy::after_passes(smig_wire_stop_reason reason, const PassDecision& decision) const {
    if (reason == SMIG_STOP_WITHIN_LIMIT)
        return {false,
                fmt::format("what is left can be sent in {} ms: nothing is owed", decision.expected_stop_ms)};
    return {true, fmt::format("passes ended ({}) with {} ms left to send: anonymous pages stay owed",
                              stop_reason_name(reason), decision.expected_stop_ms)};
}

bool speculation_pays(std::uint64_t mean_run_x100, std::uint64_t rtt_ns, double bytes_per_s) {
    if (mean_run_x100 <= 100) return false;
    const double hit = 1 - 100 / static_cast<double>(mean_run_x100);
    // Not known: of a page's order, as in a fast network.
    const double page_ns = bytes_per_s > 0 ? static_cast<double>(kPageBytes) * 1e9 / bytes_per_s
                                           : static_cast<double>(std::max<std::uint64_t>(rtt_ns, 1));
    return hit * (static_cast<double>(rtt_ns) + page_ns) > (1 - hit) * page_ns;
}

SpeculationRules only_ppm(const SpeculationRules& rules) {
    SpeculationRules rest;
    rest.thresholds[SMIG_SPECULATE_PPM] = rules.thresholds[SMIG_SPECULATE_PPM];
    return rest;
}

}  // namespace smig
