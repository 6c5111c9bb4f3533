// SPDX-License-Identifier: Apache-2.0
// Routes that have to be made anew on the clone, for the kernel drops them together with the stay address
// that they name as their source.  No memory is asked for: the clone reads them while tasks are frozen.
#pragma once

#include <linux/netlink.h>

#include <array>
#include <cstddef>

#include "agent/network/identity.hpp"
#include "agent/network/netlink.hpp"

namespace smig {

inline constexpr std::size_t kMaxStayRoutes = 32;
inline constexpr std::size_t kMaxRouteBytes = 512;  // of one, as the kernel tells it

struct SavedRoute {
    alignas(NLMSG_ALIGNTO) std::array<unsigned char, kMaxRouteBytes> answer;
    [[nodiscard]] const nlmsghdr& header() const { return *reinterpret_cast<const nlmsghdr*>(answer.data()); }
};

struct StayRoutes {
    std::array<SavedRoute, kMaxStayRoutes> routes;
    std::size_t count = 0;
    bool too_many = false;  // there are more, or one is too long
    SavedRoute default_route;
    bool has_default = false;
    IpAddress default_gateway;
    unsigned default_index = 0;
};

// Of the machine that this process runs on.  Error: the kernel does not tell them.
Result<void> read_stay_routes(Netlink& netlink, const IpAddress& stay, StayRoutes& routes);

// On the source, before a move.  Error (refused): more of them than a clone can make anew.
Result<void> check_stay_routes(Netlink& netlink, const IpAddress& stay);

}  // namespace smig
