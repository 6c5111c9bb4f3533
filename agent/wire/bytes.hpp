// SPDX-License-Identifier: Apache-2.0
// Little-endian numbers in byte strings, whatever the machine's own order is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace smig {

using Bytes = std::vector<std::byte>;
using ByteView = std::span<const std::byte>;

template <class Unsigned>
inline void put_le(std::byte* out, Unsigned value) {
    for (std::size_t i = 0; i < sizeof(Unsigned); ++i) out[i] = static_cast<std::byte>(value >> (8 * i));
}

template <class Unsigned>
[[nodiscard]] inline Unsigned get_le(const std::byte* in) {
    Unsigned value = 0;
    for (std::size_t i = 0; i < sizeof(Unsigned); ++i)
        value =
            static_cast<Unsigned>(value | static_cast<Unsigned>(std::to_integer<Unsigned>(in[i]) << (8 * i)));
    return value;
}

// Appends.
class BytesWriter {
public:
    explicit BytesWriter(Bytes& out) : out_(out) {}
    template <class Unsigned>
    BytesWriter& number(Unsigned value) {
        const std::size_t at = out_.size();
        out_.resize(at + sizeof(Unsigned));
        put_le(out_.data() + at, value);
        return *this;
    }
    template <std::size_t kCount>
    BytesWriter& raw(const std::uint8_t (&value)[kCount]) {
        return view(std::as_bytes(std::span(value)));
    }
    BytesWriter& view(ByteView value) {
        out_.insert(out_.end(), value.begin(), value.end());
        return *this;
    }

private:
    Bytes& out_;
};

// Takes from the front.  After a read past the end every further read gives zeros and ok() is false.
class BytesReader {
public:
    explicit BytesReader(ByteView in) : in_(in) {}
    template <class Unsigned>
    [[nodiscard]] Unsigned number() {
        const ByteView field = take(sizeof(Unsigned));
        return ok_ ? get_le<Unsigned>(field.data()) : Unsigned{0};
    }
    template <std::size_t kCount>
    void raw(std::uint8_t (&out)[kCount]) {
        const ByteView field = take(kCount);
        for (std::size_t i = 0; i < kCount; ++i)
            out[i] = ok_ ? std::to_integer<std::uint8_t>(field[i]) : std::uint8_t{0};
    }
    [[nodiscard]] ByteView rest() { return take(in_.size()); }
    [[nodiscard]] bool ok() const { return ok_; }
    [[nodiscard]] bool at_end() const { return in_.empty(); }

private:
    ByteView take(std::size_t count) {
        if (count > in_.size()) {
            ok_ = false;
            in_ = {};
            return {};
        }
        const ByteView field = in_.first(count);
        in_ = in_.subspan(count);
        return field;
    }

    ByteView in_;
    bool ok_ = true;
};

}  // namespace smig
