// SPDX-License-Identifier: Apache-2.0
// tap_watch INTERFACE LOG STAY STAY…: counts what passes a VM's tap, byte for byte as on a wire.
//
// A frame is of one of three kinds:
//   migration   TCP between two of the given stay addresses
//   stay        ARP that a stay address sends, or a probe for one
//   service     everything else
// Large segments (GSO) are counted as the frames a wire would carry, each with its headers.  LOG gets a line
// for every frame that is not migration: time, direction, kind, bytes, ethertype.  "count" on stdin is
// answered with one JSON line; the end of stdin ends the program.
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <span>
#include <vector>

#include "monotonic.hpp"

namespace {

enum Kind : std::size_t { kMigration, kStay, kService, kKinds };
enum Direction : std::size_t { kFromGuest, kToGuest, kDirections };
constexpr std::array<const char*, kKinds> kKindName = {"migration", "stay", "service"};
constexpr std::array<const char*, kDirections> kDirectionName = {"from_guest", "to_guest"};

struct Count {
    unsigned long long frames = 0, bytes = 0;
};

// What PACKET_VNET_HDR puts before a frame: virtio_net_hdr of <linux/virtio_net.h>, which is not C++.
struct Offload {
    std::uint8_t flags, gso_type;
    std::uint16_t hdr_len, gso_size, csum_start, csum_offset;
};
static_assert(sizeof(Offload) == 10);
constexpr std::uint8_t kNoGso = 0;

struct Frame {
    std::span<const std::uint8_t> head;  // what was captured of it
    std::size_t length;                  // all of it
    Offload offload;
};

std::uint16_t be16(std::span<const std::uint8_t> bytes, std::size_t at) {
    return static_cast<std::uint16_t>(bytes[at] << 8 | bytes[at + 1]);
}

class Classifier {
public:
    explicit Classifier(std::vector<in_addr> stay) : stay_(std::move(stay)) {}

    Kind kind(const Frame& frame) const {
        const auto head = frame.head;
        if (head.size() < 34) return kService;
        const std::uint16_t type = be16(head, 12);
        if (type == ETH_P_IP && head[23] == IPPROTO_TCP && is_stay(head, 26) && is_stay(head, 30))
            return kMigration;
        // 28: the sender's address, 38: the one it asks about or answers to
        if (type == ETH_P_ARP && head.size() >= 42 &&
            (is_stay(head, 28) || (is_zero(head, 28) && is_stay(head, 38))))
            return kStay;
        return kService;
    }

private:
    bool is_stay(std::span<const std::uint8_t> head, std::size_t at) const {
        return std::any_of(stay_.begin(), stay_.end(),
                           [&](const in_addr& one) { return std::memcmp(&one, head.data() + at, 4) == 0; });
    }
    static bool is_zero(std::span<const std::uint8_t> head, std::size_t at) {
        return std::all_of(head.begin() + static_cast<long>(at), head.begin() + static_cast<long>(at) + 4,
                           [](std::uint8_t byte) { return byte == 0; });
    }

    std::vector<in_addr> stay_;
};

// Frames and bytes a wire would carry for it.
Count on_wire(const Frame& frame) {
    if (frame.offload.gso_type == kNoGso || frame.offload.gso_size == 0) return {1, frame.length};
    std::size_t headers = frame.offload.hdr_len;
    if (frame.head.size() >= 54 && be16(frame.head, 12) == ETH_P_IP && frame.head[23] == IPPROTO_TCP) {
        const std::size_t ip = static_cast<std::size_t>(frame.head[14] & 0xf) * 4;
        const std::size_t offset_at = 14 + ip + 12;
        if (offset_at < frame.head.size())
            headers = 14 + ip + static_cast<std::size_t>(frame.head[offset_at] >> 4) * 4;
    }
    if (headers >= frame.length) return {1, frame.length};
    const std::size_t segments =
        (frame.length - headers + frame.offload.gso_size - 1) / frame.offload.gso_size;
    return {segments, frame.length + (segments - 1) * headers};
}

void tell(const std::array<std::array<Count, kKinds>, kDirections>& counts, unsigned long long missed) {
    std::printf("{\"mono_ns\": %lld, \"missed\": %llu", static_cast<long long>(lab::now_ns()), missed);
    for (std::size_t direction = 0; direction < kDirections; ++direction)
        for (std::size_t kind = 0; kind < kKinds; ++kind)
            std::printf(", \"%s_%s\": {\"frames\": %llu, \"bytes\": %llu}", kDirectionName[direction],
                        kKindName[kind], counts[direction][kind].frames, counts[direction][kind].bytes);
    std::printf("}\n");
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4) {
        std::fprintf(stderr, "usage: tap_watch INTERFACE LOG STAY STAY…\n");
        return 2;
    }
    std::vector<in_addr> stay;
    for (int index = 3; index < argc; ++index) {
        in_addr address{};
        if (inet_pton(AF_INET, argv[index], &address) != 1) return 2;
        stay.push_back(address);
    }
    const Classifier classifier(stay);
    const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
    const int on = 1, buffer = 64 << 20;
    sockaddr_ll tap{};
    tap.sll_family = AF_PACKET;
    tap.sll_protocol = htons(ETH_P_ALL);
    tap.sll_ifindex = static_cast<int>(if_nametoindex(argv[1]));
    if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer) != 0 ||
        bind(fd, reinterpret_cast<sockaddr*>(&tap), sizeof tap) != 0) {
        std::perror("tap_watch");
        return 1;
    }
    std::FILE* log = std::fopen(argv[2], "w");
    if (log == nullptr) return 1;
    std::fprintf(log, "mono_ns,direction,kind,bytes,ethertype\n");

    std::array<std::array<Count, kKinds>, kDirections> counts{};
    unsigned long long missed = 0;
    pollfd ready[] = {{fd, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    std::array<std::uint8_t, 256> bytes{};
    for (bool running = true; running;) {
        poll(ready, 2, -1);
        for (;;) {
            sockaddr_ll from{};
            iovec part{bytes.data(), bytes.size()};
            msghdr message{};
            message.msg_name = &from;
            message.msg_namelen = sizeof from;
            message.msg_iov = &part;
            message.msg_iovlen = 1;
            const ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_TRUNC);
            if (got < static_cast<ssize_t>(sizeof(Offload))) break;
            Frame frame{};
            std::memcpy(&frame.offload, bytes.data(), sizeof frame.offload);
            const std::size_t captured = std::min(static_cast<std::size_t>(got), bytes.size());
            frame.head = std::span(bytes).subspan(sizeof frame.offload, captured - sizeof frame.offload);
            frame.length = static_cast<std::size_t>(got) - sizeof frame.offload;
            const Direction direction = from.sll_pkttype == PACKET_OUTGOING ? kToGuest : kFromGuest;
            const Kind kind = classifier.kind(frame);
            const Count wire = on_wire(frame);
            counts[direction][kind].frames += wire.frames;
            counts[direction][kind].bytes += wire.bytes;
            if (kind != kMigration)
                std::fprintf(log, "%lld,%s,%s,%llu,%04x\n", static_cast<long long>(lab::now_ns()),
                             kDirectionName[direction], kKindName[kind], wire.bytes,
                             frame.head.size() >= 14 ? be16(frame.head, 12) : 0);
        }
        if (ready[1].revents == 0) continue;
        char byte = 0;
        running = read(STDIN_FILENO, &byte, 1) > 0;
        if (running && byte != '\n') continue;
        tpacket_stats stats{};
        socklen_t length = sizeof stats;
        if (getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &length) == 0) missed += stats.tp_drops;
        std::fflush(log);
        tell(counts, missed);
    }
    std::fclose(log);
    return 0;
}
