// A program as Python hands it over (program.py).
#pragma once

#include <array>
#include <cstdint>

// Python reads the names in these lists, in this order.
#define OPERATIONS(X)                                                                         \
  X(MEET) X(ADD) X(SUB) X(MUL) X(DIV) X(REM) X(MIN) X(MAX) X(AND) X(OR) X(XOR) X(SHL) X(SHR)  \
  X(MAD) X(FMA) X(NEG) X(ABS) X(NOT) X(POPC) X(BFE) X(PRMT) X(SHF) X(EX2) X(SETP) X(SELP)     \
  X(MOV) X(CVT) X(LOAD_PARAMETER) X(LOAD_GLOBAL) X(STORE_GLOBAL) X(LOAD_SHARED)               \
  X(STORE_SHARED) X(ADD_SHARED) X(LOAD_MATRIX) X(STORE_MATRIX) X(COPY) X(COMMIT_COPIES)       \
  X(WAIT_COPIES) X(SHUFFLE) X(BALLOT) X(REDUCE) X(ELECT) X(MMA) X(FENCE_PRODUCTS) X(WGMMA)    \
  X(COMMIT_PRODUCTS) X(WAIT_PRODUCTS) X(FENCE_PROXY) X(INIT_BARRIER) X(INVALIDATE_BARRIER)    \
  X(EXPECT_BYTES) X(TRY_WAIT) X(COPY_TILE) X(BRANCH) X(BRANCH_TABLE) X(RETURN) X(BARRIER)
#define COMPARISONS(X)                                                                        \
  X(EQ) X(NE) X(LT) X(LE) X(GT) X(GE) X(EQU) X(NEU) X(LTU) X(LEU) X(GTU) X(GEU) X(NUM) X(NAN_)
#define TYPES(X)                                                                              \
  X(B8, 1) X(B16, 2) X(B32, 4) X(B64, 8) X(U8, 1) X(U16, 2) X(U32, 4) X(U64, 8) X(S8, 1)      \
  X(S16, 2) X(S32, 4) X(S64, 8) X(F16, 2) X(BF16, 2) X(F32, 4) X(F64, 8) X(F16X2, 4)          \
  X(BF16X2, 4) X(PRED, 1) X(TF32, 4)

#define NAME(name) name,
#define NAME_OF_TWO(name, size) name,
#define SIZE_OF_TWO(name, size) size,
enum Operation { OPERATIONS(NAME) };
enum Comparison { COMPARISONS(NAME) };
enum Type { TYPES(NAME_OF_TWO) };
constexpr int kSize[] = {TYPES(SIZE_OF_TWO)};

constexpr int kLanes = 32;
using Lanes = std::array<uint64_t, kLanes>;  // a value for each thread of a warp

// Layouts as in program.py.
struct Operand {
  enum Kind : int32_t { REGISTER, NUMBER, SPECIAL, NOWHERE };
  int32_t kind, size;
  int64_t value;  // a register's place, or the number
};
struct Instruction {
  int32_t operation, type, source_type;
  int32_t detail[4];           // what else the mnemonic says
  int32_t predicate, negated;  // predicate: a register's place, or -1
  int32_t outputs, inputs, first;  // operands: outputs, then inputs, from `first`
  int32_t target, line;
};
struct Region {
  uint64_t begin, end;
};

// What TMA is told of a matrix: packed by launches.py into the kernel's parameters.
struct TileMap {
  uint64_t address;
  uint32_t sizes[2], box[2];  // innermost dimension first
  uint64_t stride;            // bytes from row to row
  uint32_t itemsize, swizzle;
};

// Instructions that all threads of a warp run together: whoever comes first waits.
inline bool meets(int operation) {
  switch (operation) {
    case MEET: case SHUFFLE: case BALLOT: case REDUCE: case ELECT: case LOAD_MATRIX:
    case STORE_MATRIX: case MMA: case FENCE_PRODUCTS: case WGMMA: case COMMIT_PRODUCTS:
    case WAIT_PRODUCTS: case COMMIT_COPIES: case WAIT_COPIES: case TRY_WAIT: case BARRIER:
      return true;
  }
  return false;
}
