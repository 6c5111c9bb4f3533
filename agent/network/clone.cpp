// SPDX-License-Identifier: Apache-2.0
// apply_handover(): the clone takes on the target VM's identity while every other task is frozen and its
// fences are closed.
#include <fmt/format.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "agent/network/identity.hpp"
#include "agent/network/netlink.hpp"
#include "agent/network/stay_routes.hpp"

namespace smig {

namespace {

Error failed(int error, const std::string& what) {
    return errno_error(Remedy::fatal, what, error);
}

ifreq request_for(const std::string& interface) {
    ifreq request{};
    std::copy_n(interface.begin(), std::min(interface.size(), sizeof(request.ifr_name) - 1),
                request.ifr_name);
    return request;
}

Result<void> take_mac(int socket, const Nic& nic, const MacAddress& mac) {
    ifreq request = request_for(nic.name);
    if (::ioctl(socket, SIOCGIFHWADDR, &request) != 0)
        return failed(errno, "cannot read the MAC of " + nic.name);
    if (request.ifr_hwaddr.sa_family != ARPHRD_ETHER) return {};
    if (std::memcmp(request.ifr_hwaddr.sa_data, mac.data(), mac.size()) == 0) return {};
    std::memcpy(request.ifr_hwaddr.sa_data, mac.data(), mac.size());
    if (::ioctl(socket, SIOCSIFHWADDR, &request) != 0) {
        return failed(errno, fmt::format("cannot give {} the MAC {}", nic.name, to_string(mac)));
    }
    return {};
}

Result<void> take_macs(const Handover& handover, const NetworkPlan& plan) {
    const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket) return failed(errno, "cannot open a socket for the MACs");
    for (const Nic& nic : plan.nics) {
        const auto found =
            std::find_if(handover.nics.begin(), handover.nics.end(),
                         [&](const Handover::TargetNic& target) { return target.bus_path == nic.bus_path; });
        if (found == handover.nics.end()) continue;
        if (Result<void> done = take_mac(socket.get(), nic, found->mac); !done) return done;
    }
    return {};
}

// The saved route once more, with another preferred source.
int restore_route(Netlink& netlink, const SavedRoute& saved, const IpAddress& source) {
    NetlinkMessage request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, saved.header());
    if (!request.valid()) return EMSGSIZE;
    auto* const header = static_cast<rtmsg*>(NLMSG_DATA(request.message()));
    header->rtm_flags &= RTNH_F_ONLINK;  // the kernel's own notes (dead, link down, offloaded) are no input
    const auto old = find_attribute(attributes_of(*request.message(), sizeof(rtmsg)), RTA_PREFSRC);
    if (old.size() == source.length()) {
        std::memcpy(const_cast<unsigned char*>(old.data()), source.bytes.data(), old.size());
    }
    const int error = netlink.change(request);
    // Its gateway may lie in a network that this VM is not in.
    return error == EEXIST || error == ENETUNREACH || error == EHOSTUNREACH || error == EINVAL ? 0 : error;
}

int delete_route(Netlink& netlink, const SavedRoute& saved) {
    NetlinkMessage request(RTM_DELROUTE, 0, saved.header());
    if (!request.valid()) return EMSGSIZE;
    auto* const header = static_cast<rtmsg*>(NLMSG_DATA(request.message()));
    header->rtm_flags &= RTNH_F_ONLINK;
    const int error = netlink.change(request);
    return error == ESRCH ? 0 : error;  // gone with the address
}

// IPv4 deletes a network's secondary addresses with its primary one unless this is set.
Result<std::uint32_t> read_promotion(Netlink& netlink, unsigned interface_index) {
    ifinfomsg header{};
    header.ifi_index = static_cast<int>(interface_index);
    NetlinkMessage request(RTM_GETLINK, 0, header);
    std::uint32_t value = 0;
    const int error = netlink.ask(request, [&](const nlmsghdr& answer) {
        const auto families = find_attribute(attributes_of(answer, sizeof(ifinfomsg)), IFLA_AF_SPEC);
        const auto settings = find_attribute(find_attribute(families, AF_INET), IFLA_INET_CONF);
        constexpr std::size_t kPlace = (IPV4_DEVCONF_PROMOTE_SECONDARIES - 1) * sizeof(value);
        if (settings.size() >= kPlace + sizeof(value))
            std::memcpy(&value, settings.data() + kPlace, sizeof(value));
    });
    if (error != 0) return failed(error, "cannot read the stay interface's settings");
    return value;
}

Result<void> set_promotion(Netlink& netlink, unsigned interface_index, std::uint32_t value) {
    ifinfomsg header{};
    header.ifi_index = static_cast<int>(interface_index);
    NetlinkMessage request(RTM_NEWLINK, 0, header);
    const std::size_t families = request.open_nest(IFLA_AF_SPEC);
    const std::size_t family = request.open_nest(AF_INET);
    const std::size_t settings = request.open_nest(IFLA_INET_CONF);
    request.add(IPV4_DEVCONF_PROMOTE_SECONDARIES, value);
    request.close_nest(settings);
    request.close_nest(family);
    request.close_nest(families);
    const int error = netlink.change(request);
    if (error != 0)
        return failed(error, "cannot keep the follow addresses while the stay address is replaced");
    return {};
}

Result<void> remove_stay(Netlink& netlink, const NetworkPlan& plan) {
    const bool promotes = plan.stay.family == 4;
    std::uint32_t before = 1;
    if (promotes) {
        Result<std::uint32_t> read = read_promotion(netlink, plan.stay_index);
        if (!read) return read.error();
        before = read.value();
        if (before == 0) {
            if (Result<void> set = set_promotion(netlink, plan.stay_index, 1); !set) return set;
        }
    }
    const int error = netlink.remove_address(plan.stay_index, plan.stay, plan.stay_prefix);
    if (before == 0) {
        if (Result<void> reset = set_promotion(netlink, plan.stay_index, 0); !reset) return reset;
    }
    if (error != 0)
        return failed(error, fmt::format("cannot remove the source's address {}", to_string(plan.stay)));
    return {};
}

// Where the target's stay address belongs in the guest: the interface that carried the source's, if it stands
// on that NIC.
Result<unsigned> stay_interface(const Handover& handover, const NetworkPlan& plan) {
    if (plan.stay_bus_path == handover.stay_bus_path) return plan.stay_index;
    for (const Nic& nic : plan.nics) {
        if (nic.bus_path == handover.stay_bus_path) return nic.interface_index;
    }
    return Error{Remedy::fatal,
                 fmt::format("the guest has no network card at {}, where the target's address {} is",
                             handover.stay_bus_path, to_string(handover.stay))};
}

// True when the guest's default route leads through the network that stayed behind and the new one does not
// know its gateway.
bool default_route_is_lost(const StayRoutes& routes, const Handover& handover, const NetworkPlan& plan) {
    if (!routes.has_default) return true;
    if (!routes.default_gateway || routes.default_index != plan.stay_index) return false;
    if (same_network(routes.default_gateway, handover.stay, handover.stay_prefix)) return false;
    const bool followed =
        std::any_of(plan.follow.begin(), plan.follow.end(), [&](const FollowAddress& follow) {
            return follow.interface_index == plan.stay_index &&
                   same_network(routes.default_gateway, follow.address, follow.prefix);
        });
    return !followed;
}

Result<void> set_routes(Netlink& netlink, const Handover& handover, const NetworkPlan& plan,
                        const StayRoutes& routes, unsigned index) {
    for (std::size_t i = 0; i < routes.count; ++i) {
        const int error = restore_route(netlink, routes.routes.at(i), handover.stay);
        if (error != 0) return failed(error, "cannot set again a route of the stay address");
    }
    if (!handover.gateway) return {};
    if (!same_network(handover.source_stay, handover.stay, handover.stay_prefix)) {
        const int error =
            netlink.set_route(handover.source_stay, handover.source_stay.bits(), handover.gateway, index);
        if (error != 0) return failed(error, "cannot set the route to the source");
    }
    if (default_route_is_lost(routes, handover, plan)) {
        int error = routes.has_default ? delete_route(netlink, routes.default_route) : 0;
        if (error == 0) error = netlink.set_route({}, 0, handover.gateway, index);
        if (error != 0) return failed(error, "cannot set the target's default route");
    }
    return {};
}

}  // namespace

Result<void> apply_handover(const Handover& handover, const NetworkPlan& plan) {
    if (Result<void> taken = take_macs(handover, plan); !taken) return taken;

    Result<Netlink> opened = Netlink::open();
    if (!opened) return opened.error();
    Netlink& netlink = opened.value();
    Result<unsigned> index = stay_interface(handover, plan);
    if (!index) return index.error();
    StayRoutes routes;
    if (Result<void> read = read_stay_routes(netlink, plan.stay, routes); !read) return read;

    if (int error = netlink.set_up(index.value()); error != 0)
        return failed(error, "cannot bring up the stay interface");
    // The new address first: with its last address an interface loses all its routes.
    if (int error = netlink.add_address(index.value(), handover.stay, handover.stay_prefix, kStayOrigin);
        error != 0) {
        return failed(error, fmt::format("cannot set the target's address {}", to_string(handover.stay)));
    }
    if (handover.stay != plan.stay || index.value() != plan.stay_index) {
        if (Result<void> removed = remove_stay(netlink, plan); !removed) return removed;
    }
    if (Result<void> set = set_routes(netlink, handover, plan, routes, index.value()); !set) return set;

    // What was learned of the peer while it was the other machine.
    for (const IpAddress& address : {handover.stay, plan.stay}) {
        if (int error = netlink.forget_neighbour(index.value(), address); error != 0) {
            return failed(error, "cannot forget what was learned of the migration's peer");
        }
    }
    // plan_network() has refused this, unless they came since.
    if (routes.too_many)
        return failed(E2BIG, fmt::format("not every route that names {} is set again", to_string(plan.stay)));
    return {};
}

bool close_silently(int fd) {
    const int on = 1;
    const bool repaired = ::setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) == 0;
    ::close(fd);
    return repaired;
}

}  // namespace smig
