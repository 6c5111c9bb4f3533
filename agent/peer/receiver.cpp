// SPDX-License-Identifier: Apache-2.0
#include "agent/peer/receiver.hpp"

#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "agent/base/clock.hpp"
#include "agent/base/random.hpp"
#include "agent/peer/session.hpp"
#include "agent/wire/codec.hpp"

namespace smig {

namespace asio = boost::asio;

namespace {

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

class Receiver {
public:
    explicit Receiver(const ReceiverOptions& options) : options_(options), acceptor_(io_) {}

    Result<void> run() {
        fill_random(boot_nonce_);
        ready_ = hold_memory();
        auto listener = listen_on(options_.listen, 4);
        if (!listener) return listener.error();
        const bool v6 = options_.listen.storage.ss_family == AF_INET6;
        acceptor_.assign(v6 ? asio::ip::tcp::v6() : asio::ip::tcp::v4(), listener.value().release());
        asio::co_spawn(io_, accept_loop(), asio::detached);
        options_.log("listening on " + options_.listen_text);
        io_.run();
        return Error{Remedy::fatal, "nothing is left to serve"};
    }

private:
    asio::awaitable<void> accept_loop() {
        for (;;) {
            auto [error, socket] = co_await acceptor_.async_accept(kTuple);
            if (error) {
                // Out of descriptors or memory: the session in progress will free some.
                asio::steady_timer timer(io_, std::chrono::milliseconds(100));
                co_await timer.async_wait(kTuple);
                continue;
            }
            if (busy_)
                asio::co_spawn(io_, turn_away(std::move(socket)), asio::detached);
            else
                asio::co_spawn(io_, serve(std::move(socket)), asio::detached);
        }
    }

    // Empty: the next session tries, and says what is wrong.
    std::unique_ptr<Device> hold_memory() {
        auto device = options_.open_device();
        smig_land land{};
        land.reserve_pages = options_.reserve_pages;
        if (!device || !device.value()->begin(SMIG_ROLE_TARGET) || !device.value()->land(land)) return {};
        return std::move(device).value();
    }

    asio::awaitable<void> turn_away(asio::ip::tcp::socket socket) {
        AsyncChannel channel(std::move(socket), 64);
        const Bytes payload = encode(Failure{SMIG_REASON_BUSY, "another source is being served"});
        (void)co_await channel.send(SMIG_WIRE_FAILED, payload, mono_ms() + 1000);
        co_await channel.drain(mono_ms() + 1000);
        channel.close();
    }

    asio::awaitable<void> serve(asio::ip::tcp::socket socket) {
        busy_ = true;
        co_await run_session(options_, boot_nonce_, std::move(socket), std::move(ready_));
        ready_ = hold_memory();
        busy_ = false;
        options_.log("listening again");
    }

    const ReceiverOptions& options_;
    asio::io_context io_{1};
    asio::ip::tcp::acceptor acceptor_;
    WireId boot_nonce_{};
    std::unique_ptr<Device> ready_;  // for the next session
    bool busy_ = false;
};

}  // namespace

Result<void> run_receiver(const ReceiverOptions& options) {
    return Receiver(options).run();
}

}  // namespace smig
