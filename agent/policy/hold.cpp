// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/hold.hpp"

#include <charconv>
#include <string>

#include "agent/policy/ownership.hpp"

namespace smig {

Result<Hold> parse_hold(std::string_view text) {
    const std::size_t colon = text.rfind(':');
    if (colon != std::string_view::npos) {
        const auto state = state_named(text.substr(0, colon));
        const std::string_view number = text.substr(colon + 1);
        std::int64_t ms = 0;
        const auto parsed = std::from_chars(number.data(), number.data() + number.size(), ms);
        if (state && parsed.ec == std::errc{} && parsed.ptr == number.data() + number.size() && ms >= 0 &&
            ms <= 3'600'000)
            return Hold{*state, ms};
    }
    std::string names;
    for (int number = 1; number < 128; ++number) {
        const char* name = state_name(static_cast<smig_session_state>(number));
        if (*name != '?') names += std::string(names.empty() ? "" : ", ") + name;
    }
    return Error{Remedy::refused, "--hold " + std::string(text) + ": give PHASE:MS, PHASE one of " + names};
}

std::int64_t Holds::ms_in(smig_session_state state) const {
    std::int64_t total = 0;
    for (const Hold& hold : holds_)
        if (hold.state == state) total += hold.ms;
    return total;
}

}  // namespace smig
