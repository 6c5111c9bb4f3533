// SPDX-License-Identifier: Apache-2.0
// Numeric IP addresses and MACs: values without allocation, usable in the stop process.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace smig {

struct IpAddress {
    std::uint8_t family = 0;               // 4, 6, or 0 = none
    std::array<std::uint8_t, 16> bytes{};  // network order; IPv4 in the first 4

    friend bool operator==(const IpAddress&, const IpAddress&) = default;
    explicit operator bool() const { return family != 0; }
    [[nodiscard]] unsigned length() const { return family == 4 ? 4 : family == 6 ? 16 : 0; }
    [[nodiscard]] unsigned bits() const { return length() * 8; }
    [[nodiscard]] int af() const { return family == 4 ? AF_INET : family == 6 ? AF_INET6 : AF_UNSPEC; }
};

using MacAddress = std::array<std::uint8_t, 6>;

// Numeric only; no name is ever resolved.
std::optional<IpAddress> parse_ip(std::string_view text);
std::optional<MacAddress> parse_mac(std::string_view text);
std::string to_string(const IpAddress& address);
std::string to_string(const MacAddress& mac);

// IPv4-mapped IPv6 addresses become IPv4.  None when `address` is of another family.
std::optional<IpAddress> from_sockaddr(const sockaddr* address);
// Fills `out`, returns the length to pass to connect() or bind().  `scope` is an interface index, for
// link-local IPv6.
socklen_t to_sockaddr(const IpAddress& address, std::uint16_t port, sockaddr_storage& out,
                      unsigned scope = 0);

// Global: not loopback, link-local, multicast or unspecified.
bool is_global(const IpAddress& address);
bool same_network(const IpAddress& a, const IpAddress& b, unsigned prefix);

}  // namespace smig
