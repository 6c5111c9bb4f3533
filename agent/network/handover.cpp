// SPDX-License-Identifier: Apache-2.0
// The agents' part of the hand-over page: made on the target, read in the clone.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "agent/machine/json_access.hpp"
#include "agent/network/identity.hpp"
#include "agent/network/interfaces.hpp"
#include "agent/network/netlink.hpp"

namespace smig {

namespace {

using json::Value;

constexpr std::uint64_t kFormat = 1;
constexpr std::size_t kMaxNics = 32;
constexpr std::size_t kMaxName = 128;

std::string hex(const WireId& id) {
    std::string text;
    for (const std::uint8_t byte : id) text += fmt::format("{:02x}", byte);
    return text;
}

std::optional<WireId> parse_hex(const std::string& text) {
    WireId id{};
    if (text.size() != id.size() * 2) return std::nullopt;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) return std::nullopt;
        id.at(i / 2) = static_cast<std::uint8_t>(id.at(i / 2) << 4 | digit);
    }
    return id;
}

Error wrong(const char* what) {
    return {Remedy::protocol, fmt::format("the target's hand-over has {}", what)};
}

}  // namespace

Result<std::string> format_handover(const Handover& handover) {
    Value nics = Value::array();
    for (const Handover::TargetNic& nic : handover.nics) {
        nics.push_back({{"bus", nic.bus_path}, {"name", nic.name}, {"mac", to_string(nic.mac)}});
    }
    Value blob = {{"format", kFormat},
                  {"nics", std::move(nics)},
                  {"stay",
                   {{"address", to_string(handover.stay)},
                    {"prefix", handover.stay_prefix},
                    {"bus", handover.stay_bus_path}}},
                  {"source", {{"address", to_string(handover.source_stay)}, {"port", handover.control_port}}},
                  {"epoch", hex(handover.epoch)},
                  {"nonce", hex(handover.boot_nonce)},
                  {"host", handover.hostname}};
    if (handover.gateway) blob["gateway"] = to_string(handover.gateway);
    std::string text = blob.dump(-1, ' ', true, Value::error_handler_t::replace);
    if (text.size() > SMIG_WIRE_HANDOVER_LEN || handover.nics.size() > kMaxNics) {
        return Error{Remedy::refused,
                     fmt::format("this machine has too many network cards ({}) for the hand-over page",
                                 handover.nics.size())};
    }
    return text;
}

Result<Handover> parse_handover(std::string_view blob) {
    if (blob.size() > SMIG_WIRE_HANDOVER_LEN) return wrong("more bytes than fit");
    blob = blob.substr(0, blob.find_last_not_of('\0') + 1);
    const auto parsed = json::parse_object(blob);
    if (!parsed) return wrong("no readable text");
    if (json::number(*parsed, "format") != kFormat) return wrong("another format");

    Handover handover;
    const Value& stay = json::member(*parsed, "stay");
    const Value& source = json::member(*parsed, "source");
    const auto stay_address = parse_ip(json::text(stay, "address"));
    const auto source_address = parse_ip(json::text(source, "address"));
    const std::uint64_t prefix = json::number(stay, "prefix");
    const std::uint64_t port = json::number(source, "port");
    if (!stay_address || !is_global(*stay_address)) return wrong("no stay address");
    if (!source_address || source_address->family != stay_address->family)
        return wrong("no address of the source");
    if (prefix == 0 || prefix > stay_address->bits()) return wrong("a wrong prefix length");
    if (port == 0 || port > UINT16_MAX) return wrong("a wrong port");
    handover.stay = *stay_address;
    handover.stay_prefix = static_cast<unsigned>(prefix);
    handover.stay_bus_path = json::text(stay, "bus");
    handover.source_stay = *source_address;
    handover.control_port = static_cast<std::uint16_t>(port);

    const auto epoch = parse_hex(json::text(*parsed, "epoch"));
    const auto nonce = parse_hex(json::text(*parsed, "nonce"));
    if (!epoch || !nonce) return wrong("no epoch or no boot nonce");
    handover.epoch = *epoch;
    handover.boot_nonce = *nonce;
    handover.hostname = json::shown_text(*parsed, "host");

    if (const std::string gateway = json::text(*parsed, "gateway"); !gateway.empty()) {
        const auto address = parse_ip(gateway);
        if (!address || address->family != handover.stay.family) return wrong("a wrong gateway");
        handover.gateway = *address;
    }
    for (const Value& entry : json::array(*parsed, "nics")) {
        const auto mac = parse_mac(json::text(entry, "mac"));
        Handover::TargetNic nic{json::text(entry, "bus"), json::text(entry, "name"),
                                mac.value_or(MacAddress{})};
        const bool multicast = mac && ((*mac)[0] & 1) != 0;
        if (!mac || multicast || nic.bus_path.empty() || nic.bus_path.size() > kMaxName ||
            nic.name.size() > kMaxName || handover.nics.size() == kMaxNics) {
            return wrong("a wrong network card");
        }
        handover.nics.push_back(std::move(nic));
    }
    return handover;
}

Result<std::string> describe_handover(const IpAddress& local, const IpAddress& source,
                                      std::uint16_t control_port, const WireId& epoch,
                                      const WireId& boot_nonce) {
    Handover handover;
    handover.stay = local;
    handover.source_stay = source;
    handover.control_port = control_port;
    handover.epoch = epoch;
    handover.boot_nonce = boot_nonce;
    std::array<char, kMaxName> host{};
    if (::gethostname(host.data(), host.size() - 1) == 0) handover.hostname = host.data();

    Result<Netlink> netlink = Netlink::open();
    if (!netlink) return netlink.error();
    unsigned stay_index = 0;
    int error = netlink.value().each_address([&](const InterfaceAddress& address) {
        if (address.address != local) return;
        stay_index = address.interface_index;
        handover.stay_prefix = address.prefix;
    });
    if (error == 0) {
        error = netlink.value().each_route(local.af(), [&](const Route& route, const nlmsghdr&) {
            if (route.is_default() && route.interface_index == stay_index && route.gateway)
                handover.gateway = route.gateway;
        });
    }
    if (error != 0)
        return errno_error(Remedy::fatal, "cannot list this machine's addresses and routes", error);

    for (Nic& nic : list_nics()) {
        if (nic.interface_index == stay_index) handover.stay_bus_path = nic.bus_path;
        handover.nics.push_back({std::move(nic.bus_path), std::move(nic.name), nic.mac});
    }
    if (handover.stay_bus_path.empty()) {
        return Error{Remedy::refused,
                     fmt::format("the address {} that the guest has called is on no network card of this "
                                 "machine",
                                 to_string(local))};
    }
    return format_handover(handover);
}

}  // namespace smig
