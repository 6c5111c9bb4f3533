// SPDX-License-Identifier: Apache-2.0
// Addresses, routes, links and neighbours over one rtnetlink socket.
//
// Fixed buffers, no allocation after open(), every wait bounded: usable in the clone while every other task
// is frozen. Not thread-safe.
#pragma once

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <span>

#include "agent/base/check.hpp"
#include "agent/base/fd.hpp"
#include "agent/base/result.hpp"
#include "agent/network/address.hpp"

namespace smig {

// One request: a netlink header, a family header, attributes.
class NetlinkMessage {
public:
    static constexpr std::size_t kCapacity = 1024;

    template <class Header>
    NetlinkMessage(std::uint16_t type, std::uint16_t flags, const Header& header) {
        auto* const head = message();
        head->nlmsg_type = type;
        head->nlmsg_flags = static_cast<std::uint16_t>(flags | NLM_F_REQUEST);
        head->nlmsg_len = NLMSG_LENGTH(0);
        append(&header, sizeof(header));
    }
    // A request made of one that the kernel has answered with; false in valid() when it is too long.
    NetlinkMessage(std::uint16_t type, std::uint16_t flags, const nlmsghdr& answer);

    void add(std::uint16_t attribute, const void* bytes, std::size_t length);
    void add(std::uint16_t attribute, std::uint32_t value) { add(attribute, &value, sizeof(value)); }
    void add(std::uint16_t attribute, const IpAddress& address) {
        add(attribute, address.bytes.data(), address.length());
    }
    // A family header inside an attribute (VETH_INFO_PEER).
    template <class Header>
    void add_raw(const Header& header) {
        append(&header, sizeof(header));
    }
    // An attribute holding attributes: what is added between the two calls.
    [[nodiscard]] std::size_t open_nest(std::uint16_t attribute);
    void close_nest(std::size_t nest);

    [[nodiscard]] bool valid() const { return valid_; }
    [[nodiscard]] nlmsghdr* message() { return reinterpret_cast<nlmsghdr*>(bytes_.data()); }

private:
    void append(const void* bytes, std::size_t length);
    alignas(NLMSG_ALIGNTO) std::array<unsigned char, kCapacity> bytes_{};
    bool valid_ = true;
};

// An attribute's contents inside an answer; empty when it is not there.
std::span<const unsigned char> find_attribute(std::span<const unsigned char> attributes, std::uint16_t type);
std::span<const unsigned char> attributes_of(const nlmsghdr& answer, std::size_t header_bytes);
// 0 when the attribute is absent or short.
std::uint32_t attribute_u32(std::span<const unsigned char> attributes, std::uint16_t type);
IpAddress attribute_ip(std::span<const unsigned char> attributes, std::uint16_t type, int af);

struct InterfaceAddress {
    IpAddress address;
    unsigned prefix = 0;
    unsigned interface_index = 0;
    unsigned scope = 0;
    unsigned origin = 0;      // IFA_PROTO: who has set it
    std::uint32_t flags = 0;  // IFA_F_*
};

// A route of any table as far as the agent must know it.
struct Route {
    unsigned table = 0;
    unsigned type = 0;
    unsigned protocol = 0;
    unsigned destination_prefix = 0;
    unsigned interface_index = 0;
    int af = 0;
    IpAddress gateway;
    IpAddress preferred_source;

    [[nodiscard]] bool is_default() const {
        return destination_prefix == 0 && table == RT_TABLE_MAIN && type == RTN_UNICAST;
    }
};

class Netlink {
public:
    static Result<Netlink> open();

    // Sends and waits for the acknowledgement.  0, or the kernel's errno (ETIMEDOUT: no answer).
    [[nodiscard]] int change(NetlinkMessage& request);

    // Calls `each(const nlmsghdr&)` for every answer to a dump or a single get; no request may be made
    // meanwhile. 0 or an errno.
    template <class Each>
    [[nodiscard]] int ask(NetlinkMessage& request, Each each) {
        return ask_with(
            request, [](void* context, const nlmsghdr& answer) { (*static_cast<Each*>(context))(answer); },
            &each);
    }

    template <class Each>  // each(const InterfaceAddress&)
    [[nodiscard]] int each_address(Each each) {
        NetlinkMessage request(RTM_GETADDR, NLM_F_DUMP, ifaddrmsg{});
        return ask(request, [&each](const nlmsghdr& answer) {
            InterfaceAddress address;
            if (read_address(answer, address)) each(static_cast<const InterfaceAddress&>(address));
        });
    }

    template <class Each>  // each(const Route&, const nlmsghdr&)
    [[nodiscard]] int each_route(int af, Each each) {
        rtmsg header{};
        header.rtm_family = static_cast<unsigned char>(af);
        NetlinkMessage request(RTM_GETROUTE, NLM_F_DUMP, header);
        return ask(request, [&each](const nlmsghdr& answer) {
            Route route;
            if (read_route(answer, route)) each(static_cast<const Route&>(route), answer);
        });
    }

    // The kernel's choice for a destination; false when there is none.
    [[nodiscard]] bool route_to(const IpAddress& destination, Route& route);

    // 0 or an errno; what is already so counts as done.
    [[nodiscard]] int set_up(unsigned interface_index);
    // `origin`: a mark that stays with the address (IFA_PROTO); 0: none.
    [[nodiscard]] int add_address(unsigned interface_index, const IpAddress& address, unsigned prefix,
                                  std::uint8_t origin = 0);
    [[nodiscard]] int remove_address(unsigned interface_index, const IpAddress& address, unsigned prefix);
    [[nodiscard]] int forget_neighbour(unsigned interface_index, const IpAddress& address);
    // destination with family 0: the default route; without a gateway: on the link.  Replaces an equal one.
    [[nodiscard]] int set_route(const IpAddress& destination, unsigned prefix, const IpAddress& gateway,
                                unsigned interface_index);

private:
    using Handler = void (*)(void* context, const nlmsghdr& answer);
    explicit Netlink(Fd socket) : socket_(std::move(socket)) {}
    int ask_with(NetlinkMessage& request, Handler each, void* context);
    static bool read_address(const nlmsghdr& answer, InterfaceAddress& address);
    static bool read_route(const nlmsghdr& answer, Route& route);

    static constexpr std::size_t kReceiveBytes = 16384;
    Fd socket_;
    std::uint32_t sequence_ = 0;
    alignas(NLMSG_ALIGNTO) std::array<unsigned char, kReceiveBytes> received_{};
};

}  // namespace smig
