// SPDX-License-Identifier: Apache-2.0
#include "agent/network/netlink.hpp"

#include <net/if.h>
#include <sys/socket.h>
#include <sys/time.h>

namespace smig {

namespace {

constexpr timeval kAnswerWithin{2, 0};  // the kernel answers inside sendto(); only a fault makes it wait
constexpr int kMaxReceives = 4096;      // of one dump

}  // namespace

NetlinkMessage::NetlinkMessage(std::uint16_t type, std::uint16_t flags, const nlmsghdr& answer) {
    valid_ = answer.nlmsg_len <= kCapacity;
    if (valid_) std::memcpy(bytes_.data(), &answer, answer.nlmsg_len);
    message()->nlmsg_type = type;
    message()->nlmsg_flags = static_cast<std::uint16_t>(flags | NLM_F_REQUEST);
}

void NetlinkMessage::append(const void* bytes, std::size_t length) {
    const std::size_t at = NLMSG_ALIGN(message()->nlmsg_len);
    SMIG_CHECK(at + length <= kCapacity);
    if (length > 0) std::memcpy(bytes_.data() + at, bytes, length);
    message()->nlmsg_len = static_cast<std::uint32_t>(at + length);
}

void NetlinkMessage::add(std::uint16_t attribute, const void* bytes, std::size_t length) {
    rtattr head{};
    head.rta_type = attribute;
    head.rta_len = static_cast<std::uint16_t>(RTA_LENGTH(length));
    append(&head, sizeof(head));
    append(bytes, length);
}

std::size_t NetlinkMessage::open_nest(std::uint16_t attribute) {
    const std::size_t nest = NLMSG_ALIGN(message()->nlmsg_len);
    add(attribute, nullptr, 0);
    return nest;
}

void NetlinkMessage::close_nest(std::size_t nest) {
    const auto length = static_cast<std::uint16_t>(message()->nlmsg_len - nest);
    std::memcpy(bytes_.data() + nest + offsetof(rtattr, rta_len), &length, sizeof(length));
}

std::span<const unsigned char> attributes_of(const nlmsghdr& answer, std::size_t header_bytes) {
    const std::size_t skip = NLMSG_HDRLEN + NLMSG_ALIGN(header_bytes);
    if (answer.nlmsg_len < skip) return {};
    return {reinterpret_cast<const unsigned char*>(&answer) + skip, answer.nlmsg_len - skip};
}

std::span<const unsigned char> find_attribute(std::span<const unsigned char> attributes, std::uint16_t type) {
    while (attributes.size() >= sizeof(rtattr)) {
        rtattr head;
        std::memcpy(&head, attributes.data(), sizeof(head));
        if (head.rta_len < sizeof(head) || head.rta_len > attributes.size()) break;
        if ((head.rta_type & NLA_TYPE_MASK) == type)
            return attributes.subspan(sizeof(head), head.rta_len - sizeof(head));
        attributes = attributes.subspan(std::min<std::size_t>(RTA_ALIGN(head.rta_len), attributes.size()));
    }
    return {};
}

std::uint32_t attribute_u32(std::span<const unsigned char> attributes, std::uint16_t type) {
    const auto bytes = find_attribute(attributes, type);
    std::uint32_t value = 0;
    if (bytes.size() >= sizeof(value)) std::memcpy(&value, bytes.data(), sizeof(value));
    return value;
}

IpAddress attribute_ip(std::span<const unsigned char> attributes, std::uint16_t type, int af) {
    const auto bytes = find_attribute(attributes, type);
    IpAddress address;
    address.family = af == AF_INET ? 4 : af == AF_INET6 ? 6 : 0;
    if (!address || bytes.size() != address.length()) return {};
    std::memcpy(address.bytes.data(), bytes.data(), bytes.size());
    return address;
}

Result<Netlink> Netlink::open() {
    Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    if (!socket) return errno_error(Remedy::fatal, "cannot open an rtnetlink socket");
    if (::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &kAnswerWithin, sizeof(kAnswerWithin)) != 0) {
        return errno_error(Remedy::fatal, "cannot bound the wait for rtnetlink");
    }
    return Netlink(std::move(socket));
}

int Netlink::ask_with(NetlinkMessage& request, Handler each, void* context) {
    if (!request.valid()) return EMSGSIZE;
    nlmsghdr* const head = request.message();
    head->nlmsg_seq = ++sequence_;
    head->nlmsg_pid = 0;
    const bool dump = (head->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
    const bool wants_ack = (head->nlmsg_flags & NLM_F_ACK) != 0;
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    if (::sendto(socket_.get(), head, head->nlmsg_len, 0, reinterpret_cast<const sockaddr*>(&kernel),
                 sizeof(kernel)) < 0) {
        return errno;
    }
    for (int i = 0; i < kMaxReceives; ++i) {
        const ssize_t got = ::recv(socket_.get(), received_.data(), received_.size(), 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return errno == EAGAIN ? ETIMEDOUT : errno;
        auto left = static_cast<std::uint32_t>(got);
        for (auto* answer = reinterpret_cast<nlmsghdr*>(received_.data()); NLMSG_OK(answer, left);
             answer = NLMSG_NEXT(answer, left)) {
            if (answer->nlmsg_seq != sequence_) continue;  // left over from a request that timed out
            if (answer->nlmsg_type == NLMSG_ERROR) {
                nlmsgerr error{};
                if (answer->nlmsg_len < NLMSG_LENGTH(sizeof(error))) return EBADMSG;
                std::memcpy(&error, NLMSG_DATA(answer), sizeof(error));
                return -error.error;
            }
            if (answer->nlmsg_type == NLMSG_DONE) return 0;
            each(context, *answer);
            if (!dump && !wants_ack) return 0;
        }
    }
    return EOVERFLOW;
}

int Netlink::change(NetlinkMessage& request) {
    request.message()->nlmsg_flags |= NLM_F_ACK;
    return ask_with(request, [](void*, const nlmsghdr&) {}, nullptr);
}

bool Netlink::read_address(const nlmsghdr& answer, InterfaceAddress& address) {
    ifaddrmsg header{};
    if (answer.nlmsg_type != RTM_NEWADDR || answer.nlmsg_len < NLMSG_LENGTH(sizeof(header))) return false;
    std::memcpy(&header, NLMSG_DATA(&answer), sizeof(header));
    const auto attributes = attributes_of(answer, sizeof(header));
    address.address = attribute_ip(attributes, IFA_LOCAL, header.ifa_family);
    if (!address.address) address.address = attribute_ip(attributes, IFA_ADDRESS, header.ifa_family);
    address.prefix = header.ifa_prefixlen;
    address.interface_index = header.ifa_index;
    address.scope = header.ifa_scope;
    address.flags = header.ifa_flags | attribute_u32(attributes, IFA_FLAGS);
    const auto origin = find_attribute(attributes, IFA_PROTO);
    if (!origin.empty()) address.origin = origin.front();
    return static_cast<bool>(address.address);
}

bool Netlink::read_route(const nlmsghdr& answer, Route& route) {
    rtmsg header{};
    if (answer.nlmsg_type != RTM_NEWROUTE || answer.nlmsg_len < NLMSG_LENGTH(sizeof(header))) return false;
    std::memcpy(&header, NLMSG_DATA(&answer), sizeof(header));
    const auto attributes = attributes_of(answer, sizeof(header));
    route.table = header.rtm_table;
    if (const std::uint32_t table = attribute_u32(attributes, RTA_TABLE); table != 0) route.table = table;
    route.type = header.rtm_type;
    route.protocol = header.rtm_protocol;
    route.destination_prefix = header.rtm_dst_len;
    route.interface_index = attribute_u32(attributes, RTA_OIF);
    route.af = header.rtm_family;
    route.gateway = attribute_ip(attributes, RTA_GATEWAY, header.rtm_family);
    route.preferred_source = attribute_ip(attributes, RTA_PREFSRC, header.rtm_family);
    return true;
}

bool Netlink::route_to(const IpAddress& destination, Route& route) {
    rtmsg header{};
    header.rtm_family = static_cast<unsigned char>(destination.af());
    header.rtm_dst_len = static_cast<unsigned char>(destination.bits());
    NetlinkMessage request(RTM_GETROUTE, 0, header);
    request.add(RTA_DST, destination);
    bool found = false;
    const int error = ask(request, [&](const nlmsghdr& answer) { found = read_route(answer, route); });
    return error == 0 && found;
}

int Netlink::set_up(unsigned interface_index) {
    ifinfomsg header{};
    header.ifi_family = AF_UNSPEC;
    header.ifi_index = static_cast<int>(interface_index);
    header.ifi_flags = IFF_UP;
    header.ifi_change = IFF_UP;
    NetlinkMessage request(RTM_NEWLINK, 0, header);
    return change(request);
}

int Netlink::add_address(unsigned interface_index, const IpAddress& address, unsigned prefix,
                         std::uint8_t origin) {
    ifaddrmsg header{};
    header.ifa_family = static_cast<unsigned char>(address.af());
    header.ifa_prefixlen = static_cast<unsigned char>(prefix);
    header.ifa_scope = RT_SCOPE_UNIVERSE;
    header.ifa_index = interface_index;
    // Duplicate address detection would make an IPv6 address unusable for a second.
    NetlinkMessage request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, header);
    request.add(IFA_LOCAL, address);
    request.add(IFA_ADDRESS, address);
    request.add(IFA_FLAGS, IFA_F_NODAD | IFA_F_PERMANENT);
    if (origin != 0) request.add(IFA_PROTO, &origin, sizeof(origin));
    if (address.family == 4 && prefix < 31) {
        IpAddress broadcast = address;
        for (unsigned bit = prefix; bit < 32; ++bit)
            broadcast.bytes.at(bit / 8) |= static_cast<std::uint8_t>(0x80u >> (bit % 8));
        request.add(IFA_BROADCAST, broadcast);
    }
    const int error = change(request);
    return error == EEXIST ? 0 : error;
}

int Netlink::remove_address(unsigned interface_index, const IpAddress& address, unsigned prefix) {
    ifaddrmsg header{};
    header.ifa_family = static_cast<unsigned char>(address.af());
    header.ifa_prefixlen = static_cast<unsigned char>(prefix);
    header.ifa_index = interface_index;
    NetlinkMessage request(RTM_DELADDR, 0, header);
    request.add(IFA_LOCAL, address);
    const int error = change(request);
    return error == EADDRNOTAVAIL ? 0 : error;
}

int Netlink::forget_neighbour(unsigned interface_index, const IpAddress& address) {
    ndmsg header{};
    header.ndm_family = static_cast<unsigned char>(address.af());
    header.ndm_ifindex = static_cast<int>(interface_index);
    NetlinkMessage request(RTM_DELNEIGH, 0, header);
    request.add(NDA_DST, address);
    const int error = change(request);
    return error == ENOENT ? 0 : error;
}

int Netlink::set_route(const IpAddress& destination, unsigned prefix, const IpAddress& gateway,
                       unsigned interface_index) {
    rtmsg header{};
    header.rtm_family = static_cast<unsigned char>(destination ? destination.af() : gateway.af());
    header.rtm_dst_len = static_cast<unsigned char>(prefix);
    header.rtm_table = RT_TABLE_MAIN;
    header.rtm_protocol = RTPROT_BOOT;
    header.rtm_scope = gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
    header.rtm_type = RTN_UNICAST;
    NetlinkMessage request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, header);
    if (destination) request.add(RTA_DST, destination);
    if (gateway) request.add(RTA_GATEWAY, gateway);
    request.add(RTA_OIF, interface_index);
    return change(request);
}

}  // namespace smig
