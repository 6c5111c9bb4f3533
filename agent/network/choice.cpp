// SPDX-License-Identifier: Apache-2.0
#include "agent/network/choice.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace smig {

namespace {

Error refuse(std::string text) {
    return {Remedy::refused, std::move(text)};
}

const LocalAddress* find_local(const std::vector<LocalAddress>& addresses, const IpAddress& wanted) {
    const auto found = std::find_if(addresses.begin(), addresses.end(),
                                    [&](const LocalAddress& local) { return local.address == wanted; });
    return found == addresses.end() ? nullptr : &*found;
}

std::string listed(const std::vector<LocalAddress>& addresses) {
    std::string text;
    for (const LocalAddress& local : addresses) {
        if (!text.empty()) text += ", ";
        text += fmt::format("{} on {}", to_string(local.address), local.interface);
    }
    return text.empty() ? "none" : text;
}

Result<const LocalAddress*> choose_stay(const NetworkOptions& options, const IpAddress& peer,
                                        const IpAddress& route_source,
                                        const std::vector<LocalAddress>& addresses) {
    if (options.stay.empty()) {
        const LocalAddress* stay = find_local(addresses, route_source);
        for (const LocalAddress& local : addresses) {
            if (!local.from_a_move || local.address.family != peer.family) continue;
            if (stay == nullptr || local.interface_index == stay->interface_index) return &local;
        }
        if (stay == nullptr) {
            return refuse(
                fmt::format("no global address of this machine leads to the target {}: name one with --stay "
                            "(there are: {})",
                            to_string(peer), listed(addresses)));
        }
        return stay;
    }
    const auto wanted = parse_ip(options.stay);
    if (!wanted) return refuse(fmt::format("--stay {} is not an IP address", options.stay));
    const LocalAddress* stay = find_local(addresses, *wanted);
    if (stay == nullptr) {
        return refuse(fmt::format("--stay {} is not a global address of this machine (there are: {})",
                                  options.stay, listed(addresses)));
    }
    if (wanted->family != peer.family) {
        return refuse(fmt::format("--stay {} cannot reach the target {}: one is IPv4, the other IPv6",
                                  options.stay, to_string(peer)));
    }
    return stay;
}

FollowAddress as_follow(const LocalAddress& local) {
    return {local.address, local.prefix, local.interface_index, local.interface};
}

Result<std::vector<FollowAddress>> follow_as_told(const NetworkOptions& options, const LocalAddress& stay,
                                                  const std::vector<LocalAddress>& addresses) {
    std::vector<FollowAddress> follow;
    for (const std::string& text : options.follow) {
        const auto wanted = parse_ip(text);
        if (!wanted) return refuse(fmt::format("--follow {} is not an IP address", text));
        if (*wanted == stay.address) {
            return refuse(
                fmt::format("{} cannot both stay and follow: name another address with --stay", text));
        }
        const LocalAddress* local = find_local(addresses, *wanted);
        if (local == nullptr) {
            return refuse(fmt::format("--follow {} is not a global address of this machine (there are: {})",
                                      text, listed(addresses)));
        }
        const bool known = std::any_of(follow.begin(), follow.end(),
                                       [&](const FollowAddress& other) { return other.address == *wanted; });
        if (!known) follow.push_back(as_follow(*local));
    }
    return follow;
}

Result<std::vector<FollowAddress>> follow_by_interface(const NetworkOptions& options,
                                                       const LocalAddress& stay,
                                                       const std::vector<LocalAddress>& addresses) {
    const auto named = [&](const std::string& interface) {
        return std::find(options.service_interfaces.begin(), options.service_interfaces.end(), interface) !=
               options.service_interfaces.end();
    };
    std::vector<FollowAddress> follow;
    for (const LocalAddress& local : addresses) {
        if (local.address == stay.address) continue;
        const bool wanted =
            options.service_interfaces.empty() ? !local.bus_path.empty() : named(local.interface);
        if (wanted) follow.push_back(as_follow(local));
    }
    for (const std::string& interface : options.service_interfaces) {
        const bool found = std::any_of(follow.begin(), follow.end(), [&](const FollowAddress& other) {
            return other.interface == interface;
        });
        if (!found) {
            return refuse(
                fmt::format("--service-if {} has no global address that could follow (there are: {})",
                            interface, listed(addresses)));
        }
    }
    return follow;
}

}  // namespace

Result<NetworkPlan> choose_addresses(const NetworkOptions& options, const IpAddress& peer,
                                     const IpAddress& route_source,
                                     const std::vector<LocalAddress>& addresses) {
    if (!is_global(peer)) return refuse(fmt::format("{} cannot be the target's address", to_string(peer)));
    Result<const LocalAddress*> stay = choose_stay(options, peer, route_source, addresses);
    if (!stay) return stay.error();
    const LocalAddress& local = *stay.value();
    if (local.bus_path.empty()) {
        return refuse(fmt::format("{} on {} cannot stay: the interface stands on no network card",
                                  to_string(local.address), local.interface));
    }

    Result<std::vector<FollowAddress>> follow = options.follow.empty()
                                                    ? follow_by_interface(options, local, addresses)
                                                    : follow_as_told(options, local, addresses);
    if (!follow) return follow.error();
    if (follow.value().empty()) {
        return refuse(fmt::format(
            "no address would follow the guest: {} stays, and there is no other.  Add one to {}, or say "
            "which with --follow ADDRESS or --stay ADDRESS",
            to_string(local.address), local.interface));
    }

    NetworkPlan plan;
    plan.peer = peer;
    plan.stay = local.address;
    plan.stay_prefix = local.prefix;
    plan.stay_index = local.interface_index;
    plan.stay_interface = local.interface;
    plan.stay_bus_path = local.bus_path;
    plan.follow = std::move(follow).value();
    return plan;
}

}  // namespace smig
