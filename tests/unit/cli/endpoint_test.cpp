// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/endpoint.hpp"

#include <doctest/doctest.h>

using namespace smig;

namespace {

void check(const char* text, const char* host, std::uint16_t port) {
    const auto parsed = parse_host_port(text, 7077);
    REQUIRE_MESSAGE(parsed.ok(), text);
    CHECK(parsed.value().host == host);
    CHECK(parsed.value().port == port);
}

}  // namespace

TEST_CASE("HOST[:PORT] in all its forms") {
    check("host", "host", 7077);
    check("host:1", "host", 1);
    check("10.0.0.1:65535", "10.0.0.1", 65535);
    check("fe80::1", "fe80::1", 7077);
    check("[fe80::1]", "fe80::1", 7077);
    check("[fe80::1]:99", "fe80::1", 99);
}

TEST_CASE("what is no HOST[:PORT]") {
    for (const char* bad : {"", ":1", "host:", "host:0", "host:65536", "host:1x", "host:-1", "[fe80::1",
                            "[fe80::1]x", "[]:1", "[::1]:"})
        CHECK_FALSE_MESSAGE(parse_host_port(bad, 7077).ok(), bad);
}
