# Finds LLVM/MLIR 22 and sets what every part of the compiler is built with. The
# compiler links the shared libraries LLVM and MLIR, so that a build takes
# seconds to link and a plugin shares them with its host.
include(GNUInstallDirs)
include(KVRMMLIR)
message(STATUS "MLIR ${LLVM_VERSION} in ${MLIR_DIR}")

list(APPEND CMAKE_MODULE_PATH "${MLIR_CMAKE_DIR}" "${LLVM_CMAKE_DIR}")
include(TableGen)
include(AddLLVM)
include(AddMLIR)

set(KVRM_INCLUDES ${PROJECT_SOURCE_DIR}/include ${PROJECT_BINARY_DIR}/include
                  ${PROJECT_SOURCE_DIR}/runtime/include)
# tablegen looks for ops and types of ours here.
include_directories(${KVRM_INCLUDES})
include_directories(SYSTEM ${LLVM_INCLUDE_DIRS} ${MLIR_INCLUDE_DIRS})

# Flags follow the LLVM that is linked: no RTTI.
set(KVRM_COMPILER_FLAGS -fno-rtti -Wno-unused-parameter)
if(NOT LLVM_ENABLE_ASSERTIONS)
  set(KVRM_FIRST_HEADER ${PROJECT_SOURCE_DIR}/cmake/LLVMStatistics.h)
endif()

# MLIR's headers take 20 of the 25 s that a source takes to compile. They are
# parsed once, into a header that libraries and tools begin with.
if(KVRM_PCH)
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/cmake/Precompiled.cpp CONTENT "")
  add_library(KVRMPrecompiled OBJECT ${PROJECT_BINARY_DIR}/cmake/Precompiled.cpp)
  target_compile_options(KVRMPrecompiled PRIVATE ${KVRM_COMPILER_FLAGS})
  target_precompile_headers(KVRMPrecompiled PRIVATE ${KVRM_FIRST_HEADER}
    <mlir/Dialect/Arith/IR/Arith.h>
    <mlir/Dialect/Bufferization/IR/Bufferization.h>
    <mlir/Dialect/Func/IR/FuncOps.h>
    <mlir/Dialect/GPU/IR/GPUDialect.h>
    <mlir/Dialect/LLVMIR/LLVMDialect.h>
    <mlir/Dialect/LLVMIR/NVVMDialect.h>
    <mlir/Dialect/Linalg/IR/Linalg.h>
    <mlir/Dialect/Math/IR/Math.h>
    <mlir/Dialect/MemRef/IR/MemRef.h>
    <mlir/Dialect/SCF/IR/SCF.h>
    <mlir/Dialect/Tensor/IR/Tensor.h>
    <mlir/Dialect/Vector/IR/VectorOps.h>
    <mlir/Pass/Pass.h>
    <mlir/Transforms/DialectConversion.h>)
endif()

# kvrm_use_precompiled_headers(name)
function(kvrm_use_precompiled_headers name)
  if(KVRM_PCH)
    target_precompile_headers(${name} REUSE_FROM KVRMPrecompiled)
  endif()
endfunction()

# What begins with no precompiled header begins with the first of them.
if(KVRM_FIRST_HEADER)
  set(isPrecompiled $<BOOL:$<TARGET_PROPERTY:PRECOMPILE_HEADERS_REUSE_FROM>>)
  set(KVRM_FIRST_INCLUDE
    "$<BUILD_INTERFACE:$<$<NOT:${isPrecompiled}>:SHELL:-include ${KVRM_FIRST_HEADER}>>")
endif()

# kvrm_add_compiler_library(name sources... [DEPENDS targets...] [LINK libs...])
# A static library of the compiler, installed as KVRM::<name>.
function(kvrm_add_compiler_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  target_include_directories(${name} PUBLIC
    "$<BUILD_INTERFACE:${KVRM_INCLUDES}>"
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_options(${name} PRIVATE ${KVRM_COMPILER_FLAGS})
  target_compile_options(${name} PUBLIC ${KVRM_FIRST_INCLUDE})
  kvrm_use_precompiled_headers(${name})
  target_link_libraries(${name} PUBLIC ${ARG_LINK} KVRM::MLIR)
  if(ARG_DEPENDS)
    add_dependencies(${name} ${ARG_DEPENDS})
  endif()
  install(TARGETS ${name} EXPORT KVRMCompilerTargets
          ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
endfunction()

# kvrm_add_compiler_tool(name sources... [LINK libs...])
function(kvrm_add_compiler_tool name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  # As the libraries, and so the precompiled header, are compiled.
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${name} PRIVATE ${KVRM_COMPILER_FLAGS} -fPIC)
  kvrm_use_precompiled_headers(${name})
  target_link_libraries(${name} PRIVATE ${ARG_LINK})
endfunction()
