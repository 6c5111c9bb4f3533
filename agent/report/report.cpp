// SPDX-License-Identifier: Apache-2.0
#include "agent/report/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include "agent/device/device.hpp"
#include "agent/page/pfn.hpp"
#include "agent/policy/passes.hpp"
#include "agent/report/owed_report.hpp"

namespace smig {

using Json = nlohmann::ordered_json;

namespace {

constexpr const char* kClasses[] = {"free", "anon", "cache", "kernel", "own"};
static_assert(std::size(kClasses) == SMIG_CLASS_NR);

std::string hex(std::span<const std::uint8_t> bytes) {
    std::string out;
    for (const std::uint8_t byte : bytes) out += fmt::format("{:02x}", byte);
    return out;
}

double rounded_ms(double ms) {
    return static_cast<double>(std::llround(ms * 1000.0)) / 1000.0;
}

// Milliseconds from one moment to the next; 0 when either is not known, or the clocks of two machines say
// nonsense.
double between_ms(std::uint64_t from_ns, std::uint64_t to_ns) {
    if (from_ns == 0 || to_ns < from_ns) return 0.0;
    return rounded_ms(static_cast<double>(to_ns - from_ns) / 1e6);
}

Json steps(const std::uint64_t (&us)[SMIG_STEP_SLOTS]) {
    Json out = Json::object();
    for (std::uint32_t step = 0; step < SMIG_STEP_NR; ++step)
        if (us[step] != 0) out[step_name(step)] = static_cast<double>(us[step]) / 1000.0;
    return out;
}

Json phases(const MoveOutcome& outcome) {
    const smig_wire_go& sent = outcome.sent;
    Json out;
    out["source"] = steps(outcome.sent.source_us);
    out["source"]["find_kernel"] = static_cast<double>(sent.find_kernel_us) / 1000.0;
    out["source"]["find_user"] = static_cast<double>(sent.find_user_us) / 1000.0;
    out["source"]["total"] = between_ms(outcome.stop_begun_ns, sent.captured_ns);
    out["send"] = {{"capture_to_end", between_ms(sent.captured_ns, sent.image_end_ns)},
                   {"read", rounded_ms(static_cast<double>(sent.read_ns) / 1e6)},
                   {"end_to_ready", between_ms(sent.image_end_ns, sent.ready_ns)}};
    out["landing"] = steps(outcome.landing_us);
    out["clone"] = steps(outcome.clone_us);
    out["commit"] = {{"jump_to_alive", between_ms(sent.jump_ns, sent.alive_ns)},
                     {"commit", between_ms(sent.alive_ns, sent.commit_ns)},
                     {"network", between_ms(outcome.woke_ns, outcome.network_ns)},
                     {"ask", between_ms(outcome.network_ns, outcome.asked_ns)},
                     {"ask_to_go", between_ms(outcome.asked_ns, outcome.go_ns)},
                     {"go_to_open", between_ms(outcome.go_ns, outcome.fence_open_ns)},
                     {"announce", between_ms(outcome.fence_open_ns, outcome.announced_ns)},
                     {"thaw", between_ms(outcome.announced_ns, outcome.released_ns)}};
    return out;
}

// When nothing was owed to the guest any more, or the attempt was over.
std::uint64_t ended_ns(const MoveFacts& facts, const MoveOutcome& outcome) {
    if (outcome.drained_ns != 0) return outcome.drained_ns;
    return outcome.released_ns != 0 ? outcome.released_ns : facts.finished_ns;
}

std::uint64_t pages_in_use(const MoveOutcome& outcome) {
    return outcome.sent.class_pages[SMIG_CLASS_ANON] + outcome.sent.class_pages[SMIG_CLASS_CACHE] +
           outcome.sent.class_pages[SMIG_CLASS_KERNEL];
}

std::string step_line(const char* name, const Json& values) {
    std::string line = fmt::format("  {:<8}", name);
    for (const auto& [step, ms] : values.items()) line += fmt::format(" {} {:.1f}", step, ms.get<double>());
    return line + "\n";
}

double bytes_mib(std::uint64_t bytes) {
    return static_cast<double>(bytes) / (1024.0 * 1024.0);
}
double mib(std::uint64_t pages) {
    return bytes_mib(pages * kPageBytes);
}

void add_forecast(Json& out, const Forecast& forecast) {
    out["bytes_per_s"] = std::llround(forecast.bytes_per_s);
    out["dirty_pages_per_s"] = std::llround(forecast.dirty_pages_per_s);
    out["passes"] = forecast.passes;
    out["stop_reason"] = stop_reason_name(forecast.stop_reason);
    out["first_pass_ms"] = forecast.first_pass_ms;
    out["passes_ms"] = forecast.passes_ms;
    out["bytes_payload"] = forecast.payload_bytes;
    out["stop_image_pages"] = forecast.stop_pages;
    out["stop_send_ms"] = forecast.stop_send_ms;
    out["total_ms"] = forecast.passes_ms + forecast.stop_send_ms;
}

std::string forecast_text(const MoveFacts& facts, const Forecast& forecast) {
    const auto seconds = [](std::uint64_t ms) { return static_cast<double>(ms) / 1000.0; };
    std::string text =
        fmt::format("dry run to {}: nothing was moved, the guest runs here as before\n", facts.target);
    text +=
        fmt::format("measured: {:.1f} MiB/s sent while the guest writes {:.1f} MiB/s\n",
                    forecast.bytes_per_s / (1 << 20), forecast.dirty_pages_per_s * kPageBytes / (1 << 20));
    text +=
        fmt::format("a move would take {} pass{} in {:.1f} s ({}), the first {:.1f} s; {:.1f} MiB in all\n",
                    forecast.passes, forecast.passes == 1 ? "" : "es", seconds(forecast.passes_ms),
                    stop_reason_name(forecast.stop_reason), seconds(forecast.first_pass_ms),
                    bytes_mib(forecast.payload_bytes));
    text += fmt::format(
        "then a stop that sends {:.1f} MiB in {} ms, besides what devices and processes take to stop and go "
        "on\n",
        mib(forecast.stop_pages), forecast.stop_send_ms);
    return text;
}

}  // namespace

const char* verdict_name(Verdict verdict) {
    switch (verdict) {
        case Verdict::moved:
            return "moved";
        case Verdict::rolled_back:
            return "rolled-back";
        case Verdict::refused:
            return "refused";
        case Verdict::forecast:
            return "dry-run";
    }
    return "?";
}

std::string report_json(const MoveFacts& facts, const MoveOutcome& outcome) {
    Json out;
    out["verdict"] = verdict_name(outcome.verdict);
    out["mode"] = facts.mode;
    out["kernel"] = facts.kernel;
    out["vcpus"] = facts.vcpus;
    out["memory_mib"] = facts.memory_mib;
    out["epoch"] = hex(facts.epoch);
    if (outcome.verdict == Verdict::forecast) {
        add_forecast(out, outcome.forecast);
        return out.dump();
    }
    out["total_ms"] = between_ms(facts.started_ns, ended_ns(facts, outcome));
    out["stop_ms"] = between_ms(outcome.stop_begun_ns, outcome.released_ns);
    const smig_wire_go& sent = outcome.sent;
    out["bytes_payload"] = sent.pass_payload_bytes + sent.payload_bytes + outcome.owed.bytes;
    out["passes"] = sent.passes;
    out["stop_reason"] = stop_reason_name(sent.stop_reason);
    out["pass_ms"] = rounded_ms(static_cast<double>(sent.pass_ns) / 1e6);
    out["pass_payload_bytes"] = sent.pass_payload_bytes;
    out["pass_pages_sent"] = sent.pass_data_pages;
    out["pass_pages_zero"] = sent.pass_zero_pages;
    out["pass_same_pages"] = sent.pass_same_pages;
    out["pass_read_ms"] = rounded_ms(static_cast<double>(sent.pass_read_ns) / 1e6);
    out["detection"] = sent.hashed != 0 ? "hash" : "page-tables";
    out["pages_in_use"] = pages_in_use(outcome);
    out["pages_zero"] = sent.pass_zero_pages + sent.zero_pages;
    out["pages_sent"] = sent.pass_data_pages + sent.data_pages;
    out["image_pages"] = sent.image_pages;
    out["stop_image_pages"] = sent.send_pages;
    out["stop_payload_bytes"] = sent.payload_bytes;
    out["same_pages"] = sent.same_pages;
    out["missed_pages"] = sent.missed_pages;
    out["verified_pages"] = sent.verified_pages;
    for (std::uint32_t i = 0; i < SMIG_CLASS_NR; ++i)
        out["pages_by_class"][kClasses[i]] = sent.class_pages[i];
    for (std::uint32_t i = 0; i < SMIG_CLASS_NR; ++i)
        out["stop_image_by_class"][kClasses[i]] = sent.send_by_class[i];
    out["shadow_pages"] = outcome.sent.shadow_pages;
    out["shadow_used"] = outcome.sent.shadow_used;
    out["placed_direct"] = outcome.placed_direct;
    out["placed_copied"] = outcome.placed_copied;
    add_owed(out, outcome);
    if (outcome.explanation[0] != 0) out["explanation"] = outcome.explanation;
    out["stop_phases_ms"] = phases(outcome);
    if (outcome.verdict != Verdict::moved) out["reason"] = outcome.reason;
    if (outcome.remarks[0] != 0) out["remarks"] = outcome.remarks;
    if (outcome.verdict == Verdict::moved) out["drawn"] = hex(outcome.drawn);
    // What a peer wrote may be no UTF-8.
    return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string report_text(const MoveFacts& facts, const MoveOutcome& outcome) {
    if (outcome.verdict == Verdict::forecast) return forecast_text(facts, outcome.forecast);
    if (outcome.verdict != Verdict::moved)
        return fmt::format("not moved ({}): {}\nThe guest runs here, as before.\n",
                           verdict_name(outcome.verdict), outcome.reason);
    const Json ms = phases(outcome);
    std::string text = fmt::format("moved to {}: stopped for {:.0f} ms, {:.2f} s in all\n", facts.target,
                                   between_ms(outcome.stop_begun_ns, outcome.released_ns),
                                   between_ms(facts.started_ns, ended_ns(facts, outcome)) / 1000.0);
    if (facts.explain && outcome.explanation[0] != 0) text += fmt::format("why: {}\n", outcome.explanation);
    text += fmt::format("  kernel {}, {} vCPU{}, {} MiB\n", facts.kernel, facts.vcpus,
                        facts.vcpus == 1 ? "" : "s", facts.memory_mib);
    text += "pages (MiB):\n ";
    for (std::uint32_t i = 0; i < SMIG_CLASS_NR; ++i)
        text += fmt::format(" {} {:.1f}", kClasses[i], mib(outcome.sent.class_pages[i]));
    const smig_wire_go& sent = outcome.sent;
    text += fmt::format("\n  shadow {:.1f} of {:.1f}; placed direct {:.1f}, copied {:.1f}\n",
                        mib(sent.shadow_used), mib(sent.shadow_pages), mib(outcome.placed_direct),
                        mib(outcome.placed_copied));
    if (sent.passes > 0)
        text += fmt::format(
            "{} pass{} in {:.2f} s ({}): sent {:.1f}, all-zero {:.1f}, same {:.1f}, payload {:.1f}\n",
            sent.passes, sent.passes == 1 ? "" : "es", static_cast<double>(sent.pass_ns) / 1e9,
            stop_reason_name(sent.stop_reason), mib(sent.pass_data_pages), mib(sent.pass_zero_pages),
            mib(sent.pass_same_pages), bytes_mib(sent.pass_payload_bytes));
    text +=
        fmt::format("in the stop: {:.1f} of {:.1f} to send; sent {:.1f}, all-zero {:.1f}, payload {:.1f}\n",
                    mib(sent.send_pages), mib(sent.image_pages), mib(sent.data_pages), mib(sent.zero_pages),
                    bytes_mib(sent.payload_bytes));
    if (sent.verified_pages > 0)
        text += fmt::format("verified: {} pages believed unchanged, {} of them had changed\n",
                            sent.verified_pages, sent.missed_pages);
    text += owed_text(outcome);
    text += "the stop (ms):\n";
    for (const auto& [name, values] : ms.items()) text += step_line(name.c_str(), values);
    if (outcome.remarks[0] != 0) text += fmt::format("remarks: {}\n", outcome.remarks);
    return text;
}

}  // namespace smig
