// SPDX-License-Identifier: Apache-2.0
// native_loopback MIB: how fast one agent's pages reach another's memory on this machine, without a guest.
//
// The production sender and receiver, each with its own thread, over a TCP connection on loopback; only the
// module is replaced: READ copies pages out of one buffer, PLACE copies them into another.  Pages are random,
// so nothing is zero and nothing packs.  Prints one JSON object.
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <bit>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "agent/base/check.hpp"
#include "agent/base/clock.hpp"
#include "agent/peer/image_loader.hpp"
#include "agent/source/image_sender.hpp"
#include "agent/wire/async_channel.hpp"
#include "agent/wire/channel.hpp"
#include "agent/wire/connect.hpp"

namespace {

using namespace smig;
namespace asio = boost::asio;

constexpr std::int64_t kPatienceMs = 10'000;
constexpr std::uint64_t kMemoryPages = 128 << 10;  // 512 MiB, read again and again: more than caches hold

// A module with nothing but memory.
class MemoryDevice final : public Device {
public:
    explicit MemoryDevice(bool filled) : memory_(kMemoryPages * kPageBytes) {
        std::mt19937_64 random(1);
        if (!filled) return;
        for (std::size_t i = 0; i < memory_.size(); i += 8) {
            const std::uint64_t word = random();
            std::memcpy(memory_.data() + i, &word, 8);
        }
    }

    Result<void> read(smig_read& read) override {
        const auto* pfns = std::bit_cast<const std::uint64_t*>(read.pfns);
        std::memset(std::bit_cast<void*>(read.status), SMIG_PAGE_DATA, read.nr);
        for (std::uint32_t i = 0; i < read.nr; ++i)
            std::memcpy(buffer_.data() + kPageBytes * i, page(pfns[i]), kPageBytes);
        read.nr_data = read.nr;
        return {};
    }
    Result<std::span<const std::byte>> map_buffer() override { return std::span<const std::byte>(buffer_); }
    Result<void> vacant(smig_vacant&) override { return {}; }
    Result<void> place(smig_place& place, std::uint32_t) override {
        const auto* pfns = std::bit_cast<const std::uint64_t*>(place.pfns);
        const auto* data = std::bit_cast<const std::byte*>(place.data);
        for (std::uint32_t i = 0; i < place.nr; ++i)
            std::memcpy(page(pfns[i]), data + kPageBytes * i, kPageBytes);
        return {};
    }

    Result<void> info(smig_info&) override { return none(); }
    Result<void> status(smig_status&) override { return none(); }
    Result<void> begin(std::uint32_t) override { return none(); }
    Result<void> set_flows(smig_flows&) override { return none(); }
    Result<void> exempt() override { return none(); }
    Result<void> prepare(smig_prepare&) override { return none(); }
    Result<void> track(smig_track&, std::uint32_t) override { return none(); }
    Result<void> pass(smig_pass&, std::uint32_t) override { return none(); }
    Result<void> owe(smig_owe&) override { return none(); }
    Result<std::size_t> owed_list(std::uint64_t, std::span<smig_owed_page>) override { return std::size_t{0}; }
    Result<void> install(smig_install&, std::uint32_t) override { return none(); }
    Result<void> owed_status(smig_owed_status&, std::uint32_t) override { return none(); }
    Result<std::size_t> read_faults(std::span<smig_fault>) override { return std::size_t{0}; }
    [[nodiscard]] int fault_fd() const override { return -1; }
    Result<void> capture(smig_capture&, std::uint32_t) override { return none(); }
    Result<void> verify() override { return none(); }
    Result<void> commit() override { return none(); }
    Result<void> thaw() override { return none(); }
    Result<void> land(smig_land&) override { return none(); }
    Result<void> image(smig_image&) override { return none(); }
    Error jump(smig_jump&) override { return none(); }
    Result<void> release(smig_release&, std::uint32_t) override { return none(); }

private:
    static Error none() { return {Remedy::fatal, "there is no module here"}; }
    std::byte* page(std::uint64_t pfn) { return memory_.data() + pfn % kMemoryPages * kPageBytes; }

    std::vector<std::byte> memory_;
    std::vector<std::byte> buffer_ = std::vector<std::byte>(SMIG_BUFFER_PAGES * kPageBytes);
};

class ChannelSink final : public FrameSink {
public:
    explicit ChannelSink(Channel& channel) : channel_(channel) {}
    Result<std::uint64_t> put(smig_wire_type type, std::span<const ByteView> pieces) override {
        return channel_.send(type, pieces, kPatienceMs);
    }

private:
    Channel& channel_;
};

template <class Type>
Type must(Result<Type> result) {
    if (!result) {
        std::fprintf(stderr, "%s\n", result.error().text.c_str());
        std::exit(1);
    }
    if constexpr (!std::is_void_v<Type>) return std::move(result).value();
}

// Takes everything; the peer's end is the end.
asio::awaitable<void> take(asio::ip::tcp::socket socket, ImageLoader& loader, std::uint64_t& pages) {
    AsyncChannel channel(std::move(socket), SMIG_WIRE_MAX_PAYLOAD);
    for (;;) {
        const auto frame = co_await channel.receive(mono_ms() + kPatienceMs);
        if (!frame) break;
        must(loader.load(frame.value()));
    }
    pages = loader.received_pages();
}

}  // namespace

int main(int argc, char** argv) {
    const std::uint64_t mib = argc == 2 ? std::strtoull(argv[1], nullptr, 10) : 0;
    if (mib == 0) {
        std::fprintf(stderr, "usage: native_loopback MIB\n");
        return 2;
    }
    const Pfn top{mib << 8};
    asio::io_context io{1};
    asio::ip::tcp::acceptor acceptor(io);
    acceptor.open(asio::ip::tcp::v4());
    tune_socket(acceptor.native_handle());
    acceptor.bind({asio::ip::address_v4::loopback(), 0});
    acceptor.listen();
    asio::ip::tcp::socket client(io);
    client.open(asio::ip::tcp::v4());
    tune_socket(client.native_handle());
    client.connect(acceptor.local_endpoint());
    std::uint64_t taken = 0;
    MemoryDevice destination(false);
    ImageLoader loader(destination, top);
    asio::co_spawn(io, take(acceptor.accept(), loader, taken), asio::detached);

    MemoryDevice device(true);
    Channel channel(Fd(client.release()), FrameWriter(), FrameReader(SMIG_WIRE_MAX_PAYLOAD), {});
    ChannelSink sink(channel);
    ImageSender sender(device, sink, Compress::automatic);
    must(sender.get_ready(top));
    ImageBitmap vacant(top);
    ImageBitmap all(top);
    all.set_all({Pfn{0}, PageCount{top.value}});

    const std::uint64_t begun_ns = mono_ns();
    std::thread receiver([&] { io.run(); });
    must(sender.send_vacant(vacant));
    for (Pfn next{0}; next < top;) must(sender.send_batch(all, next));
    ::shutdown(channel.fd(), SHUT_WR);
    receiver.join();
    const double seconds = static_cast<double>(mono_ns() - begun_ns) / 1e9;
    if (taken != top.value) {
        std::fprintf(stderr, "only %llu of %llu pages arrived\n", static_cast<unsigned long long>(taken),
                     static_cast<unsigned long long>(top.value));
        return 1;
    }
    std::printf("{\"pages\": %llu, \"seconds\": %.3f, \"gbit_per_s\": %.2f}\n",
                static_cast<unsigned long long>(taken), seconds,
                static_cast<double>(mib << 20) * 8 / seconds / 1e9);
    return 0;
}
