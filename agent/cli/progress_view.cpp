// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/progress_view.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

namespace smig {

namespace {

std::uint64_t number(const nlohmann::json& numbers, const char* name) {
    if (!numbers.is_object() || !numbers.contains(name) || !numbers[name].is_number_unsigned()) return 0;
    return numbers[name].get<std::uint64_t>();
}

double mib(std::uint64_t bytes) {
    return static_cast<double>(bytes) / (1024.0 * 1024.0);
}

}  // namespace

std::string progress_text(const nlohmann::json& numbers) {
    const std::uint64_t pages = number(numbers, "pages");
    const std::uint64_t done = number(numbers, "done_pages");
    const std::uint64_t left = pages > done ? pages - done : 0;
    const std::uint64_t rate = number(numbers, "bytes_per_s");
    std::string text = fmt::format("pass {}: {:.0f} of {:.0f} MiB, {:.1f} MiB/s, {:.1f} MiB/s dirtied",
                                   number(numbers, "pass"), mib(done * 4096), mib(pages * 4096), mib(rate),
                                   mib(number(numbers, "dirty_pages_per_s") * 4096));
    if (const std::uint64_t stop = number(numbers, "expected_stop_ms"); stop != 0)
        text += fmt::format(", a stop would send for {} ms", stop);
    // All-zero pages and what is the same cost less: at most so long.
    if (rate != 0 && left != 0) text += fmt::format(", {} s left of it", left * 4096 / rate + 1);
    return text;
}

void ProgressView::show(const nlohmann::json& numbers) {
    if (!terminal_) return;
    std::fprintf(stderr, "\r\033[K%s", progress_text(numbers).c_str());
    std::fflush(stderr);
    on_line_ = true;
}

void ProgressView::clear() {
    if (!on_line_) return;
    std::fprintf(stderr, "\r\033[K");
    std::fflush(stderr);
    on_line_ = false;
}

}  // namespace smig
