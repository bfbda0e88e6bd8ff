# KVRM::MLIR: the headers of the MLIR 22 that is there, and its shared libraries.
# Read by the build and, installed, by find_package(KVRM COMPONENTS Compiler).
find_package(MLIR REQUIRED CONFIG
  HINTS "${KVRM_MLIR_DIR}" /usr/lib/llvm-22/lib/cmake/mlir)
if(NOT LLVM_VERSION_MAJOR EQUAL 22)
  message(FATAL_ERROR "kvrm needs MLIR 22, found ${LLVM_VERSION} in ${MLIR_DIR}")
endif()

if(NOT TARGET KVRM::MLIR)
  add_library(KVRM::MLIR INTERFACE IMPORTED)
  target_include_directories(KVRM::MLIR SYSTEM
    INTERFACE ${LLVM_INCLUDE_DIRS} ${MLIR_INCLUDE_DIRS})
  target_link_libraries(KVRM::MLIR INTERFACE MLIR LLVM)
endif()
