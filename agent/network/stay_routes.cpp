// SPDX-License-Identifier: Apache-2.0
#include "agent/network/stay_routes.hpp"

#include <fmt/format.h>
#include <linux/rtnetlink.h>

#include <cstring>
#include <memory>

namespace smig {

namespace {

bool save(const nlmsghdr& answer, SavedRoute& saved) {
    if (answer.nlmsg_len > saved.answer.size()) return false;
    std::memcpy(saved.answer.data(), &answer, answer.nlmsg_len);
    return true;
}

}  // namespace

Result<void> read_stay_routes(Netlink& netlink, const IpAddress& stay, StayRoutes& routes) {
    const int error = netlink.each_route(stay.af(), [&](const Route& route, const nlmsghdr& answer) {
        if (route.table == RT_TABLE_LOCAL || route.protocol == RTPROT_KERNEL) return;
        if (route.is_default() && !routes.has_default && save(answer, routes.default_route)) {
            routes.has_default = true;
            routes.default_gateway = route.gateway;
            routes.default_index = route.interface_index;
        }
        if (route.preferred_source != stay) return;
        const bool room = routes.count < kMaxStayRoutes && save(answer, routes.routes.at(routes.count));
        routes.count += room ? 1 : 0;
        routes.too_many = routes.too_many || !room;
    });
    if (error != 0) return errno_error(Remedy::fatal, "cannot read the guest's routes", error);
    return {};
}

Result<void> check_stay_routes(Netlink& netlink, const IpAddress& stay) {
    const auto routes = std::make_unique<StayRoutes>();
    if (Result<void> read = read_stay_routes(netlink, stay, *routes); !read) return read;
    if (!routes->too_many) return {};
    return Error{
        Remedy::refused,
        fmt::format("more than {} routes, or one of more than {} bytes, name {} as their source; they would "
                    "be lost, for it stays here: name another address with --stay",
                    kMaxStayRoutes, kMaxRouteBytes, to_string(stay))};
}

}  // namespace smig
