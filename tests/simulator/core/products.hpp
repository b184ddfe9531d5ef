// Products of the tensor cores, 16 rows a warp, added up in float32.
//
// A warp's tile of sums (16, N): thread t holds, of each 8 columns, numbers 2 (t % 4) and the next
// in rows t / 4 and t / 4 + 8. A left operand in registers lies alike, in columns of 4 bytes.
#pragma once

#include "barriers.hpp"

constexpr int kRows = 16, kMostTerms = 16, kMostColumns = 256;

inline float element(uint64_t bits, int type) {
  return type == TF32 ? tf32(bits) : float(to_double(bits, type));
}

// (16, terms) of four registers.
inline void left_of_registers(Machine& m, const Operand* in, int type, float* left) {
  int each = 4 / kSize[type];
  for (int n = 0; n < 4; ++n) {
    const uint8_t* from = m.file() + in[n].value * kLanes;
    FOR_LANES for (int k = 0; k < each; ++k) {
      int row = lane / 4 + 8 * (n % 2), column = lane % 4 * each + k + 4 * each * (n / 2);
      uint32_t value;
      std::memcpy(&value, from + 4 * lane, 4);
      left[row * kMostTerms + column] = element(value >> 16 * k, type);
    }
  }
}

// mma.sync m16n8: left, right and sums in registers. detail[0]: terms.
inline bool mma(Machine& m, const Instruction& i, const Operand* in, const Operand* out) {
  float left[kRows * kMostTerms], right[kMostTerms][8];
  int each = 4 / kSize[i.type], terms = i.detail[0];
  if (terms != 8 * each) return m.fail("a product of this many terms");
  for (int n = 0; m.has_products && n < 4; ++n) note_register(m, in[n].value, false);
  left_of_registers(m, in, i.type, left);
  Lanes value;
  for (int n = 0; n < 2; ++n) {
    read(m, in[4 + n], value);
    FOR_LANES for (int k = 0; k < each; ++k) {
      right[lane % 4 * each + k + 4 * each * n][lane / 4] = element(value[lane] >> 16 * k, i.type);
    }
  }
  std::array<Lanes, 4> sums;  // all are read before one is written
  for (int n = 0; n < 4; ++n) {
    read(m, in[6 + n], sums[n]);
    FOR_LANES {
      int row = lane / 4 + 8 * (n / 2), column = lane % 4 * 2 + n % 2;
      float more = 0;
      for (int k = 0; k < terms; ++k) more += left[row * kMostTerms + k] * right[k][column];
      sums[n][lane] = bits_of(as_float(sums[n][lane]) + more);
    }
  }
  for (int n = 0; n < 4; ++n) write(m, out[n], sums[n], ~0u);
  return true;
}

// A matrix in shared memory as wgmma's descriptor says it lies.
struct Descriptor {
  uint32_t start, leading, stride;
  int mode;
  bool by_columns;  // neighbours in memory differ in row or column of the sums, not in the term
  int itemsize;

  // Bits 0-13, 16-29 and 32-45 in units of 16 bytes, and the swizzle in the upper two. The others
  // have to be 0, or say what is not done here: a swizzle that begins at another row.
  static bool known(Machine& m, uint64_t bits) {
    constexpr uint64_t others = ~(uint64_t(0x3fff) | uint64_t(0x3fff) << 16 |
                                  uint64_t(0x3fff) << 32 | uint64_t(3) << 62);
    return bits & others ? m.fail("a descriptor of a matrix with bits that are not known") : true;
  }
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

// Registers of a product have to be as a fence for products left them; only products one after the
// other may add to the same sums. While it is under way note_register() watches them.
inline bool start_product(Machine& m, Product product) {
  Warp& self = m.self();
  for (const auto* places : {&product.sums, &product.left}) {
    for (int32_t place : *places) {
      if (self.touched[place] == self.product_fences) {
        return m.fail("no fence for products (wgmma.fence) behind an access to its registers");
      }
    }
  }
  for (int32_t place : product.left) {
    if (self.summed[place]) return m.fail("a left operand is still a sum under way");
    ++self.read_as_left[place];
  }
  for (int32_t place : product.sums) {
    if (self.read_as_left[place]) return m.fail("a sum is still a left operand under way");
    ++self.summed[place];
  }
  for (uint32_t chunk : product.chunks) {
    if (!note_read(m, 16 * chunk, 16, true)) return false;
    Places places(m, 16 * chunk, 16);
    for (uint32_t place = places.first; place < places.last; ++place) ++m.track[place].in_flight;
  }
  self.products.push_back(std::move(product));
  return true;
}
inline void end_product(Machine& m, const Product& product) {
  for (int32_t place : product.sums) --m.self().summed[place];
  for (int32_t place : product.left) --m.self().read_as_left[place];
  for (uint32_t chunk : product.chunks) {
    Places places(m, 16 * chunk, 16);
    for (uint32_t place = places.first; place < places.last; ++place) --m.track[place].in_flight;
  }
}

// wgmma m64: a warp takes its 16 rows. detail: columns, left operand in registers, which operands
// lie by columns. It may run until it is waited for: what it reads is not to be written till then.
inline bool wgmma(Machine& m, const Instruction& i, const Operand* in, const Operand* out) {
  int columns = i.detail[0], itemsize = kSize[i.type], terms = 32 / itemsize;
  float left[kRows * kMostTerms];
  static float right[kMostColumns * kMostTerms];
  Product product;
  Lanes bits;
  if (i.detail[1]) {
    for (int n = 0; n < 4; ++n) product.left.push_back(int32_t(in[n].value));
    left_of_registers(m, in, i.type, left);
    in += 4;
  } else {
    read(m, *in++, bits);
    if (!Descriptor::known(m, bits[0])) return false;
    Descriptor d(bits[0], i.detail[2], itemsize);
    int first = m.warp % 4 * kRows;
    if (!read_matrix(m, d, i.type, first, kRows, terms, left, product.chunks)) return false;
  }
  read(m, in[0], bits);
  if (!Descriptor::known(m, bits[0])) return false;
  Descriptor d(bits[0], i.detail[3], itemsize);
  if (!read_matrix(m, d, i.type, 0, columns, terms, right, product.chunks)) return false;
  std::sort(product.chunks.begin(), product.chunks.end());
  auto last = std::unique(product.chunks.begin(), product.chunks.end());
  product.chunks.erase(last, product.chunks.end());
  for (int n = 0; n < i.outputs; ++n) product.sums.push_back(int32_t(out[n].value));
  if (!start_product(m, std::move(product))) return false;
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
  return true;
}
inline void commit_products(Machine& m) {
  m.self().product_groups.push_back(std::move(m.self().products));
  m.self().products.clear();
}
inline void wait_products(Machine& m, size_t left) {
  auto& groups = m.self().product_groups;
  while (groups.size() > left) {
    for (const Product& product : groups.front()) end_product(m, product);
    groups.erase(groups.begin());
  }
}
