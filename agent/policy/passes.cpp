// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/passes.hpp"

#include <algorithm>
#include <cmath>

namespace smig {

namespace {

constexpr double kNoGain = 0.9;
constexpr int kNoGainPasses = 2;
// Two points nearer than this in time say nothing of the curve between them.
constexpr double kDistinctTimes = 1.25;

double as_double(std::uint64_t value) {
    return static_cast<double>(value);
}

double send_ms(const PassSeen& pass, double pages, double bytes_per_s) {
    if (pass.pages == 0) return 0;
    const double share = pages / as_double(pass.pages);
    if (bytes_per_s <= 0) return share * as_double(pass.took_ns) / 1e6;
    return share * (as_double(pass.read_ns) / 1e6 + as_double(pass.payload_bytes) / bytes_per_s * 1e3);
}

}  // namespace

std::uint64_t mean_exposure_ns(std::uint64_t since_ns, std::uint64_t took_ns) {
    return since_ns - std::min(since_ns, took_ns / 2);
}

std::uint64_t mean_exposure_ns(const ReadSpan& pass, const ReadSpan& last_part, std::uint64_t changed_pages,
                               std::uint64_t now_ns) {
    const auto since = [&](const ReadSpan& read) {
        return as_double(mean_exposure_ns(now_ns - read.begun_ns, read.ended_ns - read.begun_ns));
    };
    const double share =
        last_part.pages >= changed_pages ? 1 : as_double(last_part.pages) / as_double(changed_pages);
    return static_cast<std::uint64_t>(share * since(last_part) + (1 - share) * since(pass));
}

double PassPolicy::expect_pages(const PassSeen& pass) {
    // The first pass reads everything; nothing was measured yet, and no more than everything can change.
    if (pass.exposed_ns == 0) return as_double(pass.pages);
    if (point_ && pass.pages > 0 && point_->pages > 0) {
        const double times = as_double(pass.exposed_ns) / as_double(point_->exposed_ns);
        if (times > kDistinctTimes || times < 1 / kDistinctTimes) {
            const double found = as_double(pass.pages) / as_double(point_->pages);
            exponent_ = std::clamp(std::log(found) / std::log(times), 0.0, 1.0);
        }
    }
    point_ = pass;
    const double exposed_ns = as_double(mean_exposure_ns(pass.took_ns, pass.took_ns));
    return as_double(pass.pages) * std::pow(exposed_ns / as_double(pass.exposed_ns), exponent_);
}

PassDecision PassPolicy::after(const PassSeen& pass, double bytes_per_s) {
    const double pages = expect_pages(pass);
    const double ms = send_ms(pass, pages, bytes_per_s);
    PassDecision decision;
    decision.expected_pages = static_cast<std::uint64_t>(pages);
    decision.expected_stop_ms = static_cast<std::uint64_t>(ms) + limits_.fixed_stop_ms;
    if (pass.exposed_ns != 0)
        decision.dirty_pages_per_s = as_double(pass.changed_pages) * 1e9 / as_double(pass.exposed_ns);

    const bool gain = !previous_expected_ || pages < kNoGain * *previous_expected_;
    without_gain_ = gain ? 0 : without_gain_ + 1;
    previous_expected_ = pages;
    if (ms <= as_double(limits_.downtime_limit_ms))
        decision.stop = SMIG_STOP_WITHIN_LIMIT;
    else if (pass.number >= limits_.max_passes)
        decision.stop = SMIG_STOP_MAX_PASSES;
    else if (without_gain_ >= kNoGainPasses)
        decision.stop = SMIG_STOP_NO_GAIN;
    return decision;
}

const char* stop_reason_name(std::uint64_t reason) {
    switch (reason) {
        case SMIG_STOP_NO_PASSES:
            return "no-passes";
        case SMIG_STOP_WITHIN_LIMIT:
            return "within-limit";
        case SMIG_STOP_NO_GAIN:
            return "no-gain";
        case SMIG_STOP_MAX_PASSES:
            return "max-passes";
        case SMIG_STOP_ASKED:
            return "asked";
        case SMIG_STOP_OWED:
            return "owed";
        default:
            return "none";
    }
}

}  // namespace smig
