// SPDX-License-Identifier: Apache-2.0
// Reading JSON that a peer wrote: what is absent or of another type reads as a default, and text is made
// harmless before a person sees it.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace smig::json {

using Value = nlohmann::json;

inline constexpr std::size_t kMaxText = 256u << 10;
inline constexpr std::size_t kMaxShown = 96;

// An object, or none: too long, not JSON, not an object.
inline std::optional<Value> parse_object(std::string_view text) {
    if (text.size() > kMaxText) return std::nullopt;
    Value value = Value::parse(text.begin(), text.end(), nullptr, false);
    if (!value.is_object()) return std::nullopt;
    return value;
}

inline const Value& member(const Value& object, const char* key) {
    static const Value kNothing;
    if (!object.is_object()) return kNothing;
    const auto found = object.find(key);
    return found == object.end() ? kNothing : *found;
}

// An array's elements; of anything else an empty array.
inline const Value& array(const Value& object, const char* key) {
    static const Value kEmpty = Value::array();
    const Value& value = member(object, key);
    return value.is_array() ? value : kEmpty;
}

inline std::optional<std::uint64_t> number_of(const Value& value) {
    if (!value.is_number_unsigned()) return std::nullopt;
    return value.get<std::uint64_t>();
}

inline std::uint64_t number(const Value& object, const char* key) {
    return number_of(member(object, key)).value_or(0);
}

inline bool flag(const Value& object, const char* key) {
    const Value& value = member(object, key);
    return value.is_boolean() && value.get<bool>();
}

inline std::string text(const Value& object, const char* key) {
    const Value& value = member(object, key);
    return value.is_string() ? value.get<std::string>() : std::string();
}

// For a person: printable, one line, of bounded length.
inline std::string shown(std::string_view raw) {
    std::string out;
    for (const char c : raw.substr(0, kMaxShown)) out += (c >= ' ' && c <= '~') ? c : '?';
    if (raw.size() > kMaxShown) out += "...";
    return out;
}

inline std::string shown_text(const Value& object, const char* key) {
    return shown(text(object, key));
}

}  // namespace smig::json
