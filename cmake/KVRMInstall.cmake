# The install tree: tools, plugin, and what find_package(KVRM) finds: the runtime
# and, as components, the tokenizer (Text) and the compiler (Compiler).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(KVRM_INSTALL_CMAKEDIR ${CMAKE_INSTALL_LIBDIR}/cmake/KVRM)

install(TARGETS kvrm_runtime kvrm_trace EXPORT KVRMTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
# Apart, as it needs PCRE2 and utf8proc.
install(TARGETS kvrm_text EXPORT KVRMTextTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT KVRMTargets NAMESPACE KVRM::
        DESTINATION ${KVRM_INSTALL_CMAKEDIR})
install(EXPORT KVRMTextTargets NAMESPACE KVRM::
        DESTINATION ${KVRM_INSTALL_CMAKEDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/runtime/include/kvrm
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")

# Apart, as it needs MLIR. kvrm_add_compiler_library() adds to the export.
if(KVRM_COMPILER)
  install(EXPORT KVRMCompilerTargets NAMESPACE KVRM::
          DESTINATION ${KVRM_INSTALL_CMAKEDIR})
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/kvrm
                    ${PROJECT_SOURCE_DIR}/include/kvrm-c
                    ${PROJECT_BINARY_DIR}/include/kvrm
          DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
          FILES_MATCHING PATTERN "*.h" PATTERN "*.td" PATTERN "*.inc"
          PATTERN "CMakeFiles" EXCLUDE)
  install(FILES ${CMAKE_CURRENT_LIST_DIR}/KVRMMLIR.cmake
          DESTINATION ${KVRM_INSTALL_CMAKEDIR})
endif()

configure_package_config_file(
  ${CMAKE_CURRENT_LIST_DIR}/KVRMConfig.cmake.in
  ${PROJECT_BINARY_DIR}/cmake/KVRMConfig.cmake
  INSTALL_DESTINATION ${KVRM_INSTALL_CMAKEDIR})
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/cmake/KVRMConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/cmake/KVRMConfig.cmake
              ${PROJECT_BINARY_DIR}/cmake/KVRMConfigVersion.cmake
        DESTINATION ${KVRM_INSTALL_CMAKEDIR})

foreach(tool kvrm-run kvrmc kvrm-opt kvrm-lsp-server)
  if(TARGET ${tool})
    install(TARGETS ${tool} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endforeach()
# It needs nothing of kvrm, and writes what kvrmc reads.
if(TARGET kvrmc)
  install(PROGRAMS ${PROJECT_SOURCE_DIR}/tools/export/kvrm-export-torch
          DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
if(TARGET kvrm-plugin)
  install(TARGETS kvrm-plugin LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
