// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/forecast.hpp"

#include <algorithm>
#include <cmath>

namespace smig {

namespace {

// Pages of all in use that are written within a time, in the mean, of being read.
class DirtyCurve {
public:
    explicit DirtyCurve(const ForecastSample& sample)
        : in_use_(static_cast<double>(sample.in_use_pages)),
          early_ns_(static_cast<double>(mean_exposure_ns(sample.early_ns, sample.took_ns))) {
        const auto late_ns = static_cast<double>(mean_exposure_ns(sample.late_ns, sample.took_ns));
        const double scale = in_use_ / static_cast<double>(sample.read_pages);
        early_ = static_cast<double>(sample.early_changed_pages) * scale;
        if (sample.early_changed_pages > 0 && late_ns > early_ns_)
            exponent_ = std::clamp(std::log(static_cast<double>(sample.late_changed_pages) /
                                            static_cast<double>(sample.early_changed_pages)) /
                                       std::log(late_ns / early_ns_),
                                   0.0, 1.0);
    }

    [[nodiscard]] double within(double ns) const {
        return early_ == 0 ? 0 : std::min(in_use_, early_ * std::pow(ns / early_ns_, exponent_));
    }

private:
    double in_use_;
    double early_ns_;
    double early_;
    double exponent_ = 1;
};

}  // namespace

Forecast forecast(const ForecastSample& sample, const PassLimits& limits, double bytes_per_s) {
    Forecast result;
    if (sample.read_pages == 0 || sample.early_ns == 0) return result;
    const DirtyCurve curve(sample);
    const auto read = static_cast<double>(sample.read_pages);
    const double page_ns = static_cast<double>(sample.took_ns) / read;
    PassPolicy policy(limits);
    double pages = static_cast<double>(sample.in_use_pages);
    double ns = 0;
    double all_ns = 0;
    double all_pages = 0;
    PassDecision decision;
    for (PassSeen seen{.number = 1}; !decision.stop; ++seen.number) {
        seen.exposed_ns = static_cast<std::uint64_t>(ns / 2);
        ns = std::max(pages * page_ns, 1.0);
        all_ns += ns;
        all_pages += pages;
        seen.pages = static_cast<std::uint64_t>(std::ceil(pages));
        seen.changed_pages = seen.number == 1 ? 0 : seen.pages;
        seen.took_ns = static_cast<std::uint64_t>(ns);
        seen.payload_bytes =
            static_cast<std::uint64_t>(pages / read * static_cast<double>(sample.payload_bytes));
        seen.read_ns = static_cast<std::uint64_t>(pages / read * static_cast<double>(sample.read_ns));
        if (seen.number == 1) result.first_pass_ms = static_cast<std::uint64_t>(ns / 1e6);
        decision = policy.after(seen, bytes_per_s);
        result.passes = seen.number;
        pages = curve.within(ns / 2);
    }
    result.stop_reason = *decision.stop;
    result.passes_ms = static_cast<std::uint64_t>(all_ns / 1e6);
    result.stop_pages = static_cast<std::uint64_t>(pages);
    result.stop_send_ms = static_cast<std::uint64_t>(pages * page_ns / 1e6);
    result.payload_bytes =
        static_cast<std::uint64_t>((all_pages + pages) / read * static_cast<double>(sample.payload_bytes));
    result.bytes_per_s = bytes_per_s;
    result.dirty_pages_per_s = curve.within(1e9);
    return result;
}

}  // namespace smig
