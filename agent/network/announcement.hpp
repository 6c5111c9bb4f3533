// SPDX-License-Identifier: Apache-2.0
// The frames of announce(), pure.
#pragma once

#include <array>
#include <cstdint>

#include "agent/network/address.hpp"

namespace smig {

struct Frame {
    std::array<std::uint8_t, 96> bytes{};
    std::size_t length = 0;
};

// Gratuitous ARP for an IPv4 address: as a request, which most hosts learn from, or as a reply, for the
// others.
Frame gratuitous_arp(const IpAddress& address, const MacAddress& mac, bool reply);

// Unsolicited neighbour advertisement to all nodes, with the override flag.
Frame unsolicited_advertisement(const IpAddress& address, const MacAddress& mac);

}  // namespace smig
