// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/endpoint.hpp"

#include <netdb.h>

#include <charconv>
#include <memory>

namespace smig {

Result<HostPort> parse_host_port(std::string_view text, std::uint16_t default_port) {
    HostPort out{std::string(text), default_port};
    std::string_view port;
    if (text.starts_with('[')) {
        const std::size_t end = text.find(']');
        if (end == std::string_view::npos)
            return Error{Remedy::refused, std::string(text) + ": a ']' is missing"};
        out.host = text.substr(1, end - 1);
        port = text.substr(end + 1);
        if (!port.empty() && !port.starts_with(':'))
            return Error{Remedy::refused, std::string(text) + ": give [ADDRESS]:PORT"};
        if (!port.empty()) port.remove_prefix(1);
        if (port.empty() && text.ends_with(':'))
            return Error{Remedy::refused, std::string(text) + ": the port is missing"};
    } else if (const std::size_t colon = text.find(':');
               colon != std::string_view::npos && text.rfind(':') == colon) {
        out.host = text.substr(0, colon);
        port = text.substr(colon + 1);
        if (port.empty()) return Error{Remedy::refused, std::string(text) + ": the port is missing"};
    }
    if (out.host.empty()) return Error{Remedy::refused, std::string(text) + ": the host is missing"};
    if (!port.empty()) {
        const auto parsed = std::from_chars(port.data(), port.data() + port.size(), out.port);
        if (parsed.ec != std::errc{} || parsed.ptr != port.data() + port.size() || out.port == 0)
            return Error{Remedy::refused, std::string(text) + ": not a port: " + std::string(port)};
    }
    return out;
}

Result<IpAddress> resolve_host(const std::string& host) {
    if (const auto numeric = parse_ip(host)) return *numeric;
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const int code = ::getaddrinfo(host.c_str(), nullptr, &hints, &found);
    if (code != 0) return Error{Remedy::refused, host + ": " + ::gai_strerror(code)};
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
    for (const addrinfo* one = found; one != nullptr; one = one->ai_next)
        if (const auto address = from_sockaddr(one->ai_addr)) return *address;
    return Error{Remedy::refused, host + ": has no IP address"};
}

}  // namespace smig
