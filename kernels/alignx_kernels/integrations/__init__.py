"""Loss classes of other libraries on these kernels. Import them by name: `alignx_kernels.integrations.open_clip` needs open_clip, and so on."""
