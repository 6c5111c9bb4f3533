// SPDX-License-Identifier: Apache-2.0
#include "agent/network/address.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

namespace smig {

std::optional<IpAddress> parse_ip(std::string_view text) {
    std::array<char, INET6_ADDRSTRLEN> buffer{};
    if (text.size() >= buffer.size()) return std::nullopt;
    std::copy(text.begin(), text.end(), buffer.begin());
    IpAddress address;
    if (::inet_pton(AF_INET, buffer.data(), address.bytes.data()) == 1) {
        address.family = 4;
        return address;
    }
    if (::inet_pton(AF_INET6, buffer.data(), address.bytes.data()) == 1) {
        address.family = 6;
        return address;
    }
    return std::nullopt;
}

std::optional<MacAddress> parse_mac(std::string_view text) {
    MacAddress mac{};
    if (text.size() != mac.size() * 3 - 1) return std::nullopt;
    const auto digit = [](char c) -> int {
        if (c >= '0' && c <= '9') return c - '0';
        if (c >= 'a' && c <= 'f') return c - 'a' + 10;
        if (c >= 'A' && c <= 'F') return c - 'A' + 10;
        return -1;
    };
    for (std::size_t i = 0; i < mac.size(); ++i) {
        const int high = digit(text[i * 3]);
        const int low = digit(text[i * 3 + 1]);
        if (high < 0 || low < 0 || (i + 1 < mac.size() && text[i * 3 + 2] != ':')) return std::nullopt;
        mac.at(i) = static_cast<std::uint8_t>(high * 16 + low);
    }
    return mac;
}

std::string to_string(const IpAddress& address) {
    std::array<char, INET6_ADDRSTRLEN> text{};
    if (!address || ::inet_ntop(address.af(), address.bytes.data(), text.data(), text.size()) == nullptr)
        return "none";
    return text.data();
}

std::string to_string(const MacAddress& mac) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string text;
    for (const std::uint8_t byte : mac) {
        if (!text.empty()) text += ':';
        text += kDigits[byte >> 4];
        text += kDigits[byte & 0xf];
    }
    return text;
}

std::optional<IpAddress> from_sockaddr(const sockaddr* address) {
    IpAddress ip;
    if (address->sa_family == AF_INET) {
        sockaddr_in in{};
        std::memcpy(&in, address, sizeof(in));
        ip.family = 4;
        std::memcpy(ip.bytes.data(), &in.sin_addr, sizeof(in.sin_addr));
        return ip;
    }
    if (address->sa_family == AF_INET6) {
        sockaddr_in6 in{};
        std::memcpy(&in, address, sizeof(in));
        if (IN6_IS_ADDR_V4MAPPED(&in.sin6_addr)) {
            ip.family = 4;
            std::memcpy(ip.bytes.data(), in.sin6_addr.s6_addr + 12, 4);
        } else {
            ip.family = 6;
            std::memcpy(ip.bytes.data(), &in.sin6_addr, sizeof(in.sin6_addr));
        }
        return ip;
    }
    return std::nullopt;
}

socklen_t to_sockaddr(const IpAddress& address, std::uint16_t port, sockaddr_storage& out, unsigned scope) {
    std::memset(&out, 0, sizeof(out));
    if (address.family == 6) {
        sockaddr_in6 in{};
        in.sin6_family = AF_INET6;
        in.sin6_port = htons(port);
        in.sin6_scope_id = scope;
        std::memcpy(&in.sin6_addr, address.bytes.data(), sizeof(in.sin6_addr));
        std::memcpy(&out, &in, sizeof(in));
        return sizeof(in);
    }
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    std::memcpy(&in.sin_addr, address.bytes.data(), sizeof(in.sin_addr));
    std::memcpy(&out, &in, sizeof(in));
    return sizeof(in);
}

bool is_global(const IpAddress& address) {
    const auto& b = address.bytes;
    if (address.family == 4) {
        const bool unspecified = b[0] == 0;
        const bool link_local = b[0] == 169 && b[1] == 254;
        const bool multicast_or_reserved = b[0] >= 224;
        return !unspecified && b[0] != 127 && !link_local && !multicast_or_reserved;
    }
    if (address.family == 6) {
        const bool link_local = b[0] == 0xfe && (b[1] & 0xc0) == 0x80;
        // ::/96 holds the unspecified address, loopback and obsolete IPv4-compatible ones.
        const bool nowhere =
            std::all_of(b.begin(), b.begin() + 12, [](std::uint8_t byte) { return byte == 0; });
        return !link_local && !nowhere && b[0] != 0xff;
    }
    return false;
}

bool same_network(const IpAddress& a, const IpAddress& b, unsigned prefix) {
    if (a.family != b.family || !a || prefix > a.bits()) return false;
    for (unsigned i = 0; i < prefix; ++i) {
        const unsigned mask = 0x80u >> (i % 8);
        if (((a.bytes.at(i / 8) ^ b.bytes.at(i / 8)) & mask) != 0) return false;
    }
    return true;
}

}  // namespace smig
