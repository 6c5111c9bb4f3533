// SPDX-License-Identifier: Apache-2.0
// Result: a value or an error that says what its receiver can do about it.
#pragma once

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <variant>

#include "agent/base/check.hpp"

namespace smig {

// What the receiver of an error can do.
enum class Remedy {
    retry,      // the same call may succeed later; nothing was changed
    peer_lost,  // the connection is gone; reconnect or roll back
    protocol,   // the peer sent what it must not send; drop it
    refused,    // a person must change something; the text says what
    fatal,      // this process cannot go on
};

struct Error {
    Remedy remedy = Remedy::fatal;
    std::string text;  // for a person: what failed, on what, why, what to do

    // The same error, told from one level further out: "outer: text".
    [[nodiscard]] Error within(const std::string& outer) const& { return {remedy, outer + ": " + text}; }
};

// An Error from errno: "what: strerror".
[[nodiscard]] inline Error errno_error(Remedy remedy, const std::string& what, int code = errno) {
    return {remedy, what + ": " + std::strerror(code)};
}

template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) : content_(std::in_place_index<0>, std::move(value)) {}
    Result(Error error) : content_(std::in_place_index<1>, std::move(error)) {}

    [[nodiscard]] bool ok() const { return content_.index() == 0; }
    explicit operator bool() const { return ok(); }

    T& value() & {
        SMIG_CHECK(ok());
        return std::get<0>(content_);
    }
    const T& value() const& {
        SMIG_CHECK(ok());
        return std::get<0>(content_);
    }
    T&& value() && {
        SMIG_CHECK(ok());
        return std::get<0>(std::move(content_));
    }
    [[nodiscard]] const Error& error() const {
        SMIG_CHECK(!ok());
        return std::get<1>(content_);
    }

private:
    std::variant<T, Error> content_;
};

template <>
class [[nodiscard]] Result<void> {
public:
    Result() = default;
    Result(Error error) : error_(std::move(error)), ok_(false) {}

    [[nodiscard]] bool ok() const { return ok_; }
    explicit operator bool() const { return ok_; }
    [[nodiscard]] const Error& error() const {
        SMIG_CHECK(!ok_);
        return error_;
    }

private:
    Error error_;
    bool ok_ = true;
};

}  // namespace smig
