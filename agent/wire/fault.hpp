// SPDX-License-Identifier: Apache-2.0
// What can be wrong with bytes that a peer sent, by name.
#pragma once

#include <string>

#include "agent/base/result.hpp"

namespace smig {

enum class WireFault {
    bad_magic,
    bad_version,
    bad_type,
    bad_length,  // a length no such frame can have
    truncated,   // the bytes end inside a field
    trailing,    // bytes are left after the last field
    wrong_sequence,
    wrong_checksum,
    bad_count,
    bad_range,     // a page number or a range of them
    bad_value,     // any other field out of its range
    not_reserved,  // reserved space is not zero
    unexpected,    // a frame that this state does not allow
};

// "BadLength", ...
const char* wire_fault_name(WireFault fault);

// "BadLength: detail", to be answered by dropping the peer.
[[nodiscard]] inline Error wire_error(WireFault fault, const std::string& detail) {
    return {Remedy::protocol, std::string(wire_fault_name(fault)) + ": " + detail};
}

}  // namespace smig
