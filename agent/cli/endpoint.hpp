// SPDX-License-Identifier: Apache-2.0
// HOST[:PORT] on a command line.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "agent/base/result.hpp"
#include "agent/network/address.hpp"

namespace smig {

struct HostPort {
    std::string host;
    std::uint16_t port = 0;
};

// "host", "host:7077", "1.2.3.4", "[fe80::1]:7077", "::1" (no port without brackets).  Error (refused).
Result<HostPort> parse_host_port(std::string_view text, std::uint16_t default_port);

// Numeric addresses and names; a name is looked up, which may take as long as the resolver likes.  Error
// (refused).
Result<IpAddress> resolve_host(const std::string& host);

}  // namespace smig
