// SPDX-License-Identifier: Apache-2.0
// plan_network(): which address stays, which follow.  The choice itself (choose_addresses) is pure.
#include <fmt/format.h>
#include <net/if.h>

#include <algorithm>
#include <array>

#include "agent/network/choice.hpp"
#include "agent/network/identity.hpp"
#include "agent/network/interfaces.hpp"
#include "agent/network/netlink.hpp"
#include "agent/network/stay_routes.hpp"

namespace smig {

namespace {

std::string interface_name(unsigned index) {
    std::array<char, IF_NAMESIZE> name{};
    return ::if_indextoname(index, name.data()) == nullptr ? std::string() : std::string(name.data());
}

}  // namespace

Result<NetworkPlan> plan_network(const NetworkOptions& options, const IpAddress& peer) {
    Result<Netlink> netlink = Netlink::open();
    if (!netlink) return netlink.error();

    Route route;
    const bool reachable = netlink.value().route_to(peer, route);
    if (reachable && route.type == RTN_LOCAL) {
        return Error{Remedy::refused,
                     fmt::format("{} is an address of this machine: name the target", to_string(peer))};
    }
    if (!reachable)
        return Error{Remedy::refused, fmt::format("there is no route to the target {}", to_string(peer))};

    std::vector<LocalAddress> addresses;
    const int error = netlink.value().each_address([&](const InterfaceAddress& found) {
        if (found.scope != RT_SCOPE_UNIVERSE || !is_global(found.address)) return;
        addresses.push_back(
            {found.address, found.prefix, found.interface_index, {}, {}, found.origin == kStayOrigin});
    });
    if (error != 0) return errno_error(Remedy::fatal, "cannot list this machine's addresses", error);
    for (LocalAddress& address : addresses) {
        address.interface = interface_name(address.interface_index);
        address.bus_path = bus_path_below(address.interface);
    }

    Result<NetworkPlan> plan = choose_addresses(options, peer, route.preferred_source, addresses);
    if (!plan) return plan;
    plan.value().nics = list_nics();
    if (Result<void> few = check_stay_routes(netlink.value(), plan.value().stay); !few) return few.error();
    return plan;
}

std::vector<std::string> describe_plan(const NetworkPlan& plan) {
    std::vector<std::string> lines;
    lines.push_back(
        fmt::format("stays:   {}/{} on {}", to_string(plan.stay), plan.stay_prefix, plan.stay_interface));
    for (const FollowAddress& follow : plan.follow) {
        lines.push_back(
            fmt::format("follows: {}/{} on {}", to_string(follow.address), follow.prefix, follow.interface));
    }
    return lines;
}

}  // namespace smig
