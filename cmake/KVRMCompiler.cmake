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

# kvrm_add_compiler_library(name sources... [DEPENDS targets...] [LINK libs...])
# A static library of the compiler, installed as KVRM::<name>. Flags follow the
# LLVM it links: no RTTI.
function(kvrm_add_compiler_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  target_include_directories(${name} PUBLIC
    "$<BUILD_INTERFACE:${KVRM_INCLUDES}>"
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_options(${name} PRIVATE -fno-rtti -Wno-unused-parameter)
  if(NOT LLVM_ENABLE_ASSERTIONS)
    target_compile_options(${name} PUBLIC
      "$<BUILD_INTERFACE:SHELL:-include ${PROJECT_SOURCE_DIR}/cmake/LLVMStatistics.h>")
  endif()
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
  target_compile_options(${name} PRIVATE -fno-rtti -Wno-unused-parameter)
  target_link_libraries(${name} PRIVATE ${ARG_LINK})
endfunction()
