// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "agent/network/address.hpp"
#include "agent/network/announcement.hpp"

using namespace smig;

namespace {
IpAddress ip(const char* text) {
    return parse_ip(text).value_or(IpAddress{});
}
}  // namespace

TEST_CASE("addresses are read as numbers only") {
    CHECK(to_string(ip("10.9.0.1")) == "10.9.0.1");
    CHECK(to_string(ip("fd09::1")) == "fd09::1");
    for (const char* wrong :
         {"", "localhost", "10.9.0", "10.9.0.256", "10.9.0.1/24", " 10.9.0.1", "fd09::1%eth0", ":::"}) {
        CHECK_FALSE(parse_ip(wrong));
    }
    CHECK(to_string(parse_mac("52:54:00:Ab:cD:eF").value_or(MacAddress{})) == "52:54:00:ab:cd:ef");
    for (const char* wrong :
         {"", "52:54:00:00:00", "52-54-00-00-00-01", "52:54:00:00:00:0g", "52:54:00:00:00:011"}) {
        CHECK_FALSE(parse_mac(wrong));
    }
}

TEST_CASE("only addresses that others can reach are global") {
    for (const char* yes : {"10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::1"})
        CHECK(is_global(ip(yes)));
    for (const char* no : {"0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255", "::", "::1",
                           "fe80::1", "ff02::1"}) {
        CHECK_FALSE(is_global(ip(no)));
    }
}

TEST_CASE("networks are compared by their prefix") {
    CHECK(same_network(ip("10.9.0.1"), ip("10.9.0.254"), 24));
    CHECK_FALSE(same_network(ip("10.9.0.1"), ip("10.9.1.1"), 24));
    CHECK(same_network(ip("10.9.0.1"), ip("10.9.1.1"), 23));
    CHECK(same_network(ip("fd09::1"), ip("fd09::ffff"), 64));
    CHECK_FALSE(same_network(ip("10.9.0.1"), ip("fd09::1"), 0));
    CHECK_FALSE(same_network(ip("10.9.0.1"), ip("10.9.0.1"), 33));
}

TEST_CASE("socket addresses go there and back, mapped ones become IPv4") {
    for (const char* text : {"10.9.0.1", "fd09::1"}) {
        sockaddr_storage storage{};
        to_sockaddr(ip(text), 7077, storage);
        CHECK(from_sockaddr(reinterpret_cast<const sockaddr*>(&storage)) == ip(text));
    }
    sockaddr_storage storage{};
    to_sockaddr(ip("::ffff:10.9.0.1"), 1, storage);
    CHECK(from_sockaddr(reinterpret_cast<const sockaddr*>(&storage)) == ip("10.9.0.1"));
    storage.ss_family = AF_UNIX;
    CHECK_FALSE(from_sockaddr(reinterpret_cast<const sockaddr*>(&storage)));
}

TEST_CASE("a gratuitous ARP names the address twice and its card as sender") {
    const MacAddress mac = parse_mac("52:54:00:00:00:02").value_or(MacAddress{});
    const Frame request = gratuitous_arp(ip("10.8.0.1"), mac, false);
    CHECK(request.length == 60);
    CHECK(request.bytes[0] == 0xff);
    CHECK(request.bytes[11] == 0x02);
    CHECK(request.bytes[21] == 1);
    CHECK(request.bytes[27] == 0x02);
    CHECK(request.bytes[28] == 10);
    CHECK(request.bytes[31] == 1);
    CHECK(request.bytes[38] == 10);
    CHECK(request.bytes[41] == 1);
    CHECK(gratuitous_arp(ip("10.8.0.1"), mac, true).bytes[21] == 2);
}

TEST_CASE("an unsolicited advertisement overrides and its checksum is right") {
    const Frame frame =
        unsolicited_advertisement(ip("fd09::100"), parse_mac("52:54:00:00:00:02").value_or(MacAddress{}));
    CHECK(frame.length == 14 + 40 + 32);
    CHECK(frame.bytes[14 + 7] == 255);
    CHECK(frame.bytes[54] == 136);
    CHECK(frame.bytes[58] == 0x20);
    // Addresses, length, next header, message with its checksum: the sum's complement is 0.
    std::uint32_t sum = 32 + 58;
    for (std::size_t i = 22; i < frame.length; i += 2)
        sum += static_cast<std::uint32_t>(frame.bytes[i] << 8 | frame.bytes[i + 1]);
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    CHECK(sum == 0xffff);
}
