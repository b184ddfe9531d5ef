// Products of the tensor cores, 16 rows a warp, added up in float32.
//
// A warp's tile of sums (16, N): thread t holds, of each 8 columns, numbers 2 (t % 4) and the next
// in rows t / 4 and t / 4 + 8. A left operand in registers lies alike, in columns of 4 bytes.
#pragma once

#include "asynchronous.hpp"

constexpr int kRows = 16, kMostTerms = 16, kMostColumns = 256;

inline float element(uint64_t bits, int type) {
  return type == TF32 ? tf32(bits) : float(to_double(bits, type));
}

// (16, terms) of four registers.
inline void left_of_registers(Machine& m, const Operand* in, int type, float* left) {
  int each = 4 / kSize[type];
  Lanes value;
  for (int n = 0; n < 4; ++n) {
    read(m, in[n], value);
    FOR_LANES for (int k = 0; k < each; ++k) {
      int row = lane / 4 + 8 * (n % 2), column = lane % 4 * each + k + 4 * each * (n / 2);
      left[row * kMostTerms + column] = element(value[lane] >> 16 * k, type);
    }
  }
}

// mma.sync m16n8: left, right and sums in registers. detail[0]: terms.
inline bool mma(Machine& m, const Instruction& i, const Operand* in, const Operand* out) {
  float left[kRows * kMostTerms], right[kMostTerms][8];
  int each = 4 / kSize[i.type], terms = i.detail[0];
  if (terms != 8 * each) return m.fail("a product of this many terms");
  left_of_registers(m, in, i.type, left);
  Lanes value, sum;
  for (int n = 0; n < 2; ++n) {
    read(m, in[4 + n], value);
    FOR_LANES for (int k = 0; k < each; ++k) {
      right[lane % 4 * each + k + 4 * each * n][lane / 4] = element(value[lane] >> 16 * k, i.type);
    }
  }
  for (int n = 0; n < 4; ++n) {
    read(m, in[6 + n], sum);
    FOR_LANES {
      int row = lane / 4 + 8 * (n / 2), column = lane % 4 * 2 + n % 2;
      float more = 0;
      for (int k = 0; k < terms; ++k) more += left[row * kMostTerms + k] * right[k][column];
      sum[lane] = bits_of(as_float(sum[lane]) + more);
    }
    write(m, out[n], sum, ~0u);
  }
  return true;
}

// A matrix in shared memory as wgmma's descriptor says it lies.
struct Descriptor {
  uint32_t start, leading, stride;
  int mode;
  bool by_columns;  // neighbours in memory differ in row or column of the sums, not in the term
  int itemsize;

  Descriptor(uint64_t bits, bool by_columns, int itemsize)
      : start((bits & 0x3fff) << 4), leading((bits >> 16 & 0x3fff) << 4),
        stride((bits >> 32 & 0x3fff) << 4), mode(int(bits >> 62)), by_columns(by_columns),
        itemsize(itemsize) {}
  uint32_t address(uint32_t outer, uint32_t term) const {
    constexpr uint32_t widths[] = {16, 128, 64, 32};
    uint32_t width = widths[mode], each = width / itemsize, at = start;
    if (!by_columns) {
      uint32_t bytes = term * itemsize;
      at += outer % 8 * width + outer / 8 * stride;
      at += mode ? bytes : bytes / 16 * leading + bytes % 16;
    } else {
      at += outer % each * itemsize + term % 8 * width;
      at += outer / each * (mode ? leading : stride) + term / 8 * (mode ? stride : leading);
    }
    return swizzled(at, mode);
  }
};

inline bool read_matrix(Machine& m, const Descriptor& d, int type, int first, int count, int terms,
                        float* to, Chunks& chunks) {
  for (int n = 0; n < count; ++n) {
    for (int k = 0; k < terms; ++k) {
      uint32_t address = d.address(first + n, k);
      if (!within(m, address, d.itemsize, d.itemsize)) return false;
      uint32_t bits = 0;
      std::memcpy(&bits, &m.shared[address], d.itemsize);
      to[n * kMostTerms + k] = element(bits, type);
      if (chunks.empty() || chunks.back() != address / 16) chunks.push_back(address / 16);
    }
  }
  return true;
}

// wgmma m64: a warp takes its 16 rows. detail: columns, left operand in registers, which operands
// lie by columns. It may run until it is waited for: what it reads is not to be written till then.
inline bool wgmma(Machine& m, const Instruction& i, const Operand* in, const Operand* out) {
  int columns = i.detail[0], itemsize = kSize[i.type], terms = 32 / itemsize;
  float left[kRows * kMostTerms];
  static float right[kMostColumns * kMostTerms];
  Chunks chunks;
  Lanes bits;
  if (i.detail[1]) {
    left_of_registers(m, in, i.type, left);
    in += 4;
  } else {
    read(m, *in++, bits);
    Descriptor d(bits[0], i.detail[2], itemsize);
    if (!read_matrix(m, d, i.type, m.warp % 4 * kRows, kRows, terms, left, chunks)) return false;
  }
  read(m, in[0], bits);
  Descriptor d(bits[0], i.detail[3], itemsize);
  if (!read_matrix(m, d, i.type, 0, columns, terms, right, chunks)) return false;
  std::sort(chunks.begin(), chunks.end());
  chunks.erase(std::unique(chunks.begin(), chunks.end()), chunks.end());
  for (uint32_t chunk : chunks) {
    if (!note_read(m, 16 * chunk, 16, true)) return false;
    for (int n = 0; n < 8; ++n) ++m.track[8 * chunk + n].in_flight;
  }
  read(m, in[1], bits);
  bool adds = bits[0] & 1;
  for (int n = 0; n < i.outputs; ++n) {
    float* sums = reinterpret_cast<float*>(m.file() + out[n].value * kLanes);
    FOR_LANES {
      int row = lane / 4 + 8 * (n / 2 % 2), column = n / 4 * 8 + lane % 4 * 2 + n % 2;
      const float *a = left + row * kMostTerms, *b = right + column * kMostTerms;
      float more = 0;
      for (int k = 0; k < terms; ++k) more += a[k] * b[k];
      sums[lane] = adds ? sums[lane] + more : more;
    }
  }
  m.self().products.push_back(std::move(chunks));
  return true;
}
inline bool wait_products(Machine& m, size_t left) {
  auto& groups = m.self().product_groups;
  while (groups.size() > left) {
    for (const Chunks& chunks : groups.front()) {
      for (uint32_t chunk : chunks) {
        for (int n = 0; n < 8; ++n) --m.track[8 * chunk + n].in_flight;
      }
    }
    groups.erase(groups.begin());
  }
  return true;
}
