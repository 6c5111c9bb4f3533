// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/pacing.hpp"

#include <charconv>
#include <string>

namespace smig {

namespace {

struct Unit {
    std::string_view name;
    double bytes;
};

constexpr Unit kUnits[] = {
    {"", 1},       {"B", 1},         {"kB", 1e3},      {"KB", 1e3},      {"MB", 1e6},
    {"GB", 1e9},   {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"bit", 1.0 / 8},
    {"kbit", 125}, {"mbit", 125e3},  {"gbit", 125e6},  {"Mbit", 125e3},  {"Gbit", 125e6},
};
constexpr double kLeast = 64 << 10;  // below it a large page frame would take longer than a target waits
constexpr double kMost = 1e12;

}  // namespace

Result<std::uint64_t> parse_rate(std::string_view text) {
    const Error wrong{Remedy::refused, "not a rate: \"" + std::string(text) +
                                           "\"; say for example 500mbit, 2.5gbit, 20MB or 300KiB (a second)"};
    double number = 0;
    const auto [end, failed] =
        std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
    if (failed != std::errc{} || !(number >= 0)) return wrong;
    const std::string_view name = text.substr(static_cast<std::size_t>(end - text.data()));
    for (const Unit& unit : kUnits) {
        if (unit.name != name) continue;
        const double bytes = number * unit.bytes;
        if (bytes == 0) return std::uint64_t{0};
        if (bytes < kLeast || bytes > kMost)
            return Error{Remedy::refused, "a rate of " + std::string(text) +
                                              ": between 64KiB and 1000GB a second can be kept"};
        return static_cast<std::uint64_t>(bytes);
    }
    return wrong;
}

}  // namespace smig
