// SPDX-License-Identifier: Apache-2.0
#include "agent/network/announcement.hpp"

#include <fmt/format.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <initializer_list>

#include "agent/base/fd.hpp"
#include "agent/network/identity.hpp"

namespace smig {

namespace {

constexpr MacAddress kBroadcast{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
constexpr MacAddress kAllNodesMac{0x33, 0x33, 0x00, 0x00, 0x00, 0x01};
constexpr std::size_t kMinimumFrame = 60;  // of Ethernet, without its checksum
constexpr std::size_t kEthernetBytes = 14;
constexpr std::size_t kIpv6Bytes = 40;
constexpr std::size_t kAdvertisementBytes = 32;  // ICMPv6 header, target, link-layer option
constexpr unsigned kRounds = 2;

class FrameWriter {
public:
    explicit FrameWriter(Frame& frame) : frame_(frame) {}
    void put8(unsigned value) { frame_.bytes.at(frame_.length++) = static_cast<std::uint8_t>(value); }
    void put16(unsigned value) {
        put8(value >> 8 & 0xff);
        put8(value & 0xff);
    }
    void put32(std::uint32_t value) {
        put16(value >> 16);
        put16(value & 0xffff);
    }
    template <class Bytes>
    void put(const Bytes& bytes, std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) put8(bytes.at(i));
    }

private:
    Frame& frame_;
};

std::uint32_t add_words(std::uint32_t sum, const std::uint8_t* bytes, std::size_t length) {
    for (std::size_t i = 0; i + 1 < length; i += 2)
        sum += static_cast<std::uint32_t>(bytes[i] << 8 | bytes[i + 1]);
    return sum;
}

// The current MAC; none on an interface that is no Ethernet.
std::optional<MacAddress> mac_of(int socket, const std::string& interface) {
    ifreq request{};
    std::copy_n(interface.begin(), std::min(interface.size(), sizeof(request.ifr_name) - 1),
                request.ifr_name);
    if (::ioctl(socket, SIOCGIFHWADDR, &request) != 0 || request.ifr_hwaddr.sa_family != ARPHRD_ETHER)
        return std::nullopt;
    MacAddress mac{};
    std::memcpy(mac.data(), request.ifr_hwaddr.sa_data, mac.size());
    return mac;
}

bool send_frame(int socket, unsigned interface_index, const Frame& frame) {
    sockaddr_ll to{};
    to.sll_family = AF_PACKET;
    to.sll_ifindex = static_cast<int>(interface_index);
    to.sll_halen = 6;
    std::memcpy(to.sll_addr, frame.bytes.data(), to.sll_halen);
    const ssize_t sent = ::sendto(socket, frame.bytes.data(), frame.length, MSG_DONTWAIT,
                                  reinterpret_cast<const sockaddr*>(&to), sizeof(to));
    return sent == static_cast<ssize_t>(frame.length);
}

}  // namespace

Frame gratuitous_arp(const IpAddress& address, const MacAddress& mac, bool reply) {
    Frame frame;
    FrameWriter out(frame);
    out.put(kBroadcast, 6);
    out.put(mac, 6);
    out.put16(0x0806);
    out.put16(1);       // Ethernet
    out.put16(0x0800);  // IPv4
    out.put8(6);
    out.put8(4);
    out.put16(reply ? ARPOP_REPLY : ARPOP_REQUEST);
    out.put(mac, 6);
    out.put(address.bytes, 4);
    out.put(reply ? mac : MacAddress{}, 6);
    out.put(address.bytes, 4);
    while (frame.length < kMinimumFrame) out.put8(0);
    return frame;
}

Frame unsolicited_advertisement(const IpAddress& address, const MacAddress& mac) {
    constexpr std::array<std::uint8_t, 16> kAllNodes{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01};
    Frame frame;
    FrameWriter out(frame);
    out.put(kAllNodesMac, 6);
    out.put(mac, 6);
    out.put16(0x86dd);
    out.put32(0x60000000);
    out.put16(kAdvertisementBytes);
    out.put8(IPPROTO_ICMPV6);
    out.put8(255);  // receivers drop it with any other hop limit
    out.put(address.bytes, 16);
    out.put(kAllNodes, 16);
    out.put8(136);
    out.put8(0);
    out.put16(0);           // checksum, below
    out.put32(0x20000000);  // override
    out.put(address.bytes, 16);
    out.put8(2);  // target link-layer address
    out.put8(1);  // in units of 8 bytes
    out.put(mac, 6);

    // Over the pseudo header (both addresses, length, next header) and the message.
    std::uint32_t sum = kAdvertisementBytes + IPPROTO_ICMPV6;
    sum = add_words(sum, frame.bytes.data() + kEthernetBytes + 8, 32);
    sum = add_words(sum, frame.bytes.data() + kEthernetBytes + kIpv6Bytes, kAdvertisementBytes);
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    const std::uint32_t checksum = ~sum & 0xffff;
    frame.bytes.at(kEthernetBytes + kIpv6Bytes + 2) = static_cast<std::uint8_t>(checksum >> 8);
    frame.bytes.at(kEthernetBytes + kIpv6Bytes + 3) = static_cast<std::uint8_t>(checksum & 0xff);
    return frame;
}

std::vector<std::string> announce(const NetworkPlan& plan, unsigned gap_ms) {
    std::vector<std::string> failures;
    const Fd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    if (!socket) return {fmt::format("cannot announce the addresses: {}", std::strerror(errno))};
    for (unsigned round = 0; round < kRounds; ++round) {
        if (round > 0) {
            const timespec gap{gap_ms / 1000, static_cast<long>(gap_ms % 1000) * 1'000'000};
            ::nanosleep(&gap, nullptr);
        }
        for (const FollowAddress& follow : plan.follow) {
            const auto mac = mac_of(socket.get(), follow.interface);
            if (!mac) continue;  // a network without link-layer addresses has nothing to learn
            bool sent = true;
            if (follow.address.family == 4) {
                sent = send_frame(socket.get(), follow.interface_index,
                                  gratuitous_arp(follow.address, *mac, false));
                sent = send_frame(socket.get(), follow.interface_index,
                                  gratuitous_arp(follow.address, *mac, true)) &&
                       sent;
            } else {
                sent = send_frame(socket.get(), follow.interface_index,
                                  unsolicited_advertisement(follow.address, *mac));
            }
            if (sent) continue;
            failures.push_back(fmt::format("cannot announce {} on {}: {}", to_string(follow.address),
                                           follow.interface, std::strerror(errno)));
        }
    }
    return failures;
}

}  // namespace smig
