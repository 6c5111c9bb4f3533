// SPDX-License-Identifier: Apache-2.0
#include "agent/report/owed_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include "agent/page/pfn.hpp"
#include "agent/policy/speculation.hpp"

namespace smig {

namespace {

double ms_of(std::uint64_t ns) {
    return static_cast<double>(std::llround(static_cast<double>(ns) / 1e3)) / 1e3;
}

double mean_ms(std::uint64_t sum_ns, std::uint64_t count) {
    return count == 0 ? 0 : ms_of(sum_ns / count);
}

double mib(std::uint64_t pages) {
    return static_cast<double>(pages * kPageBytes) / (1 << 20);
}

const char* order_name(std::uint32_t order) {
    return order == SMIG_PUSH_OUTWARD ? "outward" : order == SMIG_PUSH_SEQUENTIAL ? "sequential" : "none";
}

// 0: nothing was owed, or whoever saw the beginning has died.
std::uint64_t owed_phase_ns(const MoveOutcome& outcome) {
    const bool known = outcome.released_ns != 0 && outcome.drained_ns > outcome.released_ns;
    return known ? outcome.drained_ns - outcome.released_ns : 0;
}

}  // namespace

double wait_percentile_ms(const smig_owed_status& status, double share) {
    std::uint64_t all = 0;
    for (const std::uint64_t count : status.wait_by_log2_us) all += count;
    if (all == 0) return 0;
    const auto wanted = static_cast<std::uint64_t>(std::ceil(share * static_cast<double>(all)));
    std::uint64_t seen = 0;
    for (std::size_t slot = 0; slot < SMIG_LATENCY_SLOTS; ++slot) {
        seen += std::span(status.wait_by_log2_us)[slot];
        if (seen < std::max<std::uint64_t>(wanted, 1)) continue;
        const double end_ms = std::ldexp(1.0, static_cast<int>(slot)) / 1e3;
        return std::min(end_ms, ms_of(status.max_wait_ns));
    }
    return ms_of(status.max_wait_ns);
}

void add_owed(nlohmann::ordered_json& out, const MoveOutcome& outcome) {
    const OwedTally& tally = outcome.owed;
    const smig_owed_status& status = tally.status;
    // A supervisor that took over was not told what the source had measured.
    out["owed_pages"] = std::max<std::uint64_t>(outcome.sent.owed_pages, status.owed_pages);
    out["owe_ms"] = static_cast<double>(outcome.sent.owe_us) / 1e3;
    out["hot_pages"] = outcome.sent.hot_pages;
    out["pages_sent_twice"] = outcome.sent.repeated_pages + tally.source.sent_before;
    out["demand_fetches"] = status.demand_faults;
    out["demand_pages"] = status.demand_pages;
    out["touched_owed_pages"] = status.demand_pages + status.speculated_used + status.pushed_used;
    out["speculated"] = status.speculated_pages;
    out["speculated_used"] = status.speculated_used;
    out["pushed"] = status.pushed_pages;
    out["pushed_used"] = status.pushed_used;
    out["freed_owed_pages"] = status.freed_pages;
    out["arrived_asked"] = tally.arrived[SMIG_OWED_ASKED];
    out["arrived_speculated"] = tally.arrived[SMIG_OWED_SPECULATED];
    out["arrived_pushed"] = tally.arrived[SMIG_OWED_PUSHED];
    out["arrived_again"] = tally.arrived_again;
    out["owed_payload_bytes"] = tally.bytes;
    out["owed_reconnections"] = tally.reconnections;
    out["push_rests"] = tally.rests;
    out["speculation"] = speculation_names(tally.source.speculation);
    out["push_order"] = order_name(tally.source.order);
    out["owed_mean_run"] = static_cast<double>(tally.source.mean_run_x100) / 100;
    out["owed_phase_ms"] = ms_of(owed_phase_ns(outcome));
    out["fault_wait_ms"] = {{"mean", mean_ms(status.wait_ns, status.demand_faults)},
                            {"p50", wait_percentile_ms(status, 0.5)},
                            {"p99", wait_percentile_ms(status, 0.99)},
                            {"max", ms_of(status.max_wait_ns)}};
    out["fault_phases_ms"] = {{"announce", mean_ms(status.announce_ns, status.demand_pages)},
                              {"fetch", mean_ms(status.fetch_ns, status.demand_pages)},
                              {"install", mean_ms(status.install_ns, status.demand_pages)},
                              {"wake", mean_ms(status.wake_ns, status.demand_faults)}};
}

std::string owed_text(const MoveOutcome& outcome) {
    if (outcome.sent.owed_pages == 0 && outcome.owed.status.owed_pages == 0) return "";
    const OwedTally& tally = outcome.owed;
    const smig_owed_status& status = tally.status;
    std::string text = fmt::format(
        "owed: {:.1f} MiB, fetched within {:.2f} s of the switch; {} hot pages went in the stop\n",
        mib(status.owed_pages), static_cast<double>(owed_phase_ns(outcome)) / 1e9, outcome.sent.hot_pages);
    text += fmt::format(
        "  {} faults waited for {} pages: mean {:.2f} ms, p50 {:.2f}, p99 {:.2f}, max {:.2f}\n",
        status.demand_faults, status.demand_pages, mean_ms(status.wait_ns, status.demand_faults),
        wait_percentile_ms(status, 0.5), wait_percentile_ms(status, 0.99), ms_of(status.max_wait_ns));
    text += fmt::format(
        "  of it announce {:.2f}, fetch {:.2f}, install {:.2f}, wake {:.2f} ms\n",
        mean_ms(status.announce_ns, status.demand_pages), mean_ms(status.fetch_ns, status.demand_pages),
        mean_ms(status.install_ns, status.demand_pages), mean_ms(status.wake_ns, status.demand_faults));
    text += fmt::format("  speculated {} pages ({}), used {}; pushed {} ({}), used {}; freed {}\n",
                        status.speculated_pages, speculation_names(tally.source.speculation),
                        status.speculated_used, status.pushed_pages, order_name(tally.source.order),
                        status.pushed_used, status.freed_pages);
    return text;
}

}  // namespace smig
